"""What `edgecap bench` adds to the stream that it measures: three loops in turn.

    python benchmarks/bench_overhead.py --out benchmarks/records/bench_overhead.json

bench : the loop of `edgecap bench`, with its watches, its sink and its progress
stream : the same pipeline with a sink that does nothing, as `edgecap stream` runs it
calls : no pipeline: read a frame, resize, encode, decode

All caption the same frames with one captioner, and look at the clock at their begin and end. The
bench's overhead is that over the stream; what the stream itself takes over calls is told beside it.
Exit code 1: the overhead is 1 % or more.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, write_atomically

import edgecap
from edgecap.bench.energy import Metering, find_meters
from edgecap.bench.measure import Step
from edgecap.bench.stages import NO_DRAFTS, Stages
from edgecap.bench.usage import Watch
from edgecap.cli.bench import showing_progress
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.streams import Event, Pipeline, StreamOptions, open_source

MOST = 1.0  # percent that the bench may add
DRAWS = 10_000


@click.command()
@click.option("--rounds", default=60, show_default=True)
@click.option("--captions", default=40, show_default=True, help="Of each loop in each round.")
@click.option("--beams", default=4, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(rounds: int, captions: int, beams: int, threads: int, out: Path | None) -> None:
    """Time the loops in turn, each of them first as often as the others."""
    captioner = edgecap.load(threads=threads)
    loops = {"calls": calls, "stream": stream, "bench": bench}
    names = list(loops)
    for run in loops.values():
        run(captioner, beams, captions)
    rows = []
    for turn in range(rounds):
        order = names[turn % 3 :] + names[: turn % 3]
        took = {name: loops[name](captioner, beams, captions) for name in order}
        rows.append([took[name] / captions * 1e3 for name in names])
    table = dict(zip(names, np.array(rows).T, strict=True))
    overhead = percent_over(table["stream"], table["bench"])
    record: dict[str, Any] = {
        "command": command("benchmarks/bench_overhead.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": captioner.name,
        "engine": captioner.engine_choice.engine,
        "beams": beams,
        "threads": threads,
        "rounds": rounds,
        "captions_of_each_loop": captions,
        "ms_per_caption": {name: round(float(np.median(row)), 4) for name, row in table.items()},
        "bench_over_stream_percent": overhead,
        "stream_over_calls_percent": percent_over(table["calls"], table["stream"]),
        "bench_over_calls_percent": percent_over(table["calls"], table["bench"]),
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")
    if overhead["median"] >= MOST:
        raise SystemExit(1)


def percent_over(less: np.ndarray, more: np.ndarray) -> dict[str, float]:
    """Median of the rounds' ratios less 1, in percent, and its 95 % interval by bootstrap."""
    ratios = more / less
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, (DRAWS, len(ratios))), axis=1)
    found = (np.median(ratios), *np.percentile(draws, (2.5, 97.5)))
    names = ("median", "low", "high")
    return {name: round((float(x) - 1) * 100, 3) for name, x in zip(names, found, strict=True)}


def calls(captioner: Captioner, beams: int, captions: int) -> float:
    """Seconds of ``captions`` captions after a first one."""
    options = captioner.options(beams=beams)
    with open_source("test://moving", realtime=False) as frames:
        for count in range(captions + 1):
            if count == 1:
                begin = time.monotonic()
            frame = frames.read()
            assert frame is not None
            pixels = captioner.resize(frame.image)[None, ..., ::-1]
            captioner.decode(captioner.engine.encode(np.ascontiguousarray(pixels)), options)
    return time.monotonic() - begin


class Nothing:
    """A sink that does nothing."""

    name = "nothing"

    def write(self, event: Event) -> None:
        """Take an event."""

    def close(self) -> None:
        """Nothing is held."""


def stream(captioner: Captioner, beams: int, captions: int) -> float:
    """The same by a pipeline."""
    with open_source("test://moving", realtime=False) as frames:
        pipeline = Pipeline(
            frames,
            captioner,
            sinks=[Nothing()],
            options=StreamOptions(gate="none", near=NO_DRAFTS, max_captions=captions + 1),
            decoding={"beams": beams},
        )
        for count, _ in enumerate(pipeline):
            if count == 0:
                begin = time.monotonic()
            elif count == captions:
                end = time.monotonic()
    return end - begin


def bench(captioner: Captioner, beams: int, captions: int) -> float:
    """The same by the loop of ``edgecap bench``."""
    with open_source("test://moving", realtime=False) as frames, showing_progress() as tell:
        stages = Stages(
            frames,
            captioner,
            beams=beams,
            duration=3600.0,
            captions=captions,
            warm_up=1,
            watched=[Metering(find_meters(None)), Watch(None)],
            seen=lambda count, seconds: tell(Step(f"{count} captions", 1, 1, count / captions)),
        )
        return stages.run().seconds


if __name__ == "__main__":
    main()
