"""What `edgecap bench` adds to what it measures: its loop and a bare one, in turn.

    python benchmarks/bench_overhead.py --out benchmarks/records/bench_overhead.json

The bare loop reads frames, resizes, encodes and decodes, and looks at the clock at its begin and at
its end. The other loop is the one that `edgecap bench` runs, with its watches, sink and progress.
Both caption the same frames with one captioner. Exit code 1: the median of the pairs' ratios is 1 %
over the bare loop or more.
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
from edgecap.bench.stages import Stages
from edgecap.bench.usage import Watch
from edgecap.cli.bench import showing_progress
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.streams import open_source

MOST = 0.01  # share of a caption's time that the bench may add
DRAWS = 10_000


@click.command()
@click.option("--pairs", default=60, show_default=True)
@click.option("--captions", default=40, show_default=True, help="Of each loop in each pair.")
@click.option("--beams", default=4, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(pairs: int, captions: int, beams: int, threads: int, out: Path | None) -> None:
    """Time both loops in turn, the first of them by turns, too."""
    captioner = edgecap.load(threads=threads)
    loops = {"bare": bare, "bench": bench}
    for run in loops.values():
        run(captioner, beams, captions)
    rows = []
    for pair in range(pairs):
        order = list(loops) if pair % 2 else list(loops)[::-1]
        took = {name: loops[name](captioner, beams, captions) for name in order}
        rows.append([took[name] for name in loops])
    table = np.array(rows) / captions * 1e3
    ratios = table[:, 1] / table[:, 0]
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(ratios, (DRAWS, len(ratios))), axis=1)
    overhead = float(np.median(ratios)) - 1
    record: dict[str, Any] = {
        "command": command("benchmarks/bench_overhead.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": captioner.name,
        "engine": captioner.engine_choice.engine,
        "beams": beams,
        "threads": threads,
        "pairs": pairs,
        "captions_of_each_loop": captions,
        "bare_ms_per_caption": round(float(np.median(table[:, 0])), 4),
        "bench_ms_per_caption": round(float(np.median(table[:, 1])), 4),
        "overhead_percent": round(overhead * 100, 3),
        "overhead_95_percent_interval": [
            round((float(edge) - 1) * 100, 3) for edge in np.percentile(draws, (2.5, 97.5))
        ],
        "overhead_ms_per_caption": round(float(np.median(table[:, 1] - table[:, 0])), 4),
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")
    if overhead >= MOST:
        raise SystemExit(1)


def bare(captioner: Captioner, beams: int, captions: int) -> float:
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
