"""Captions a second of real clips at 30 frames a second, alone and four cameras on one model.

    python benchmarks/stream_rate.py CLIPS --out benchmarks/records/stream_rate.json

Each clip of the folder CLIPS is looped at 30 frames a second without a gate, so that every frame
wants a caption; then four clips share one model, each a camera of its own. Exit code 1: under 15
captions a second of a clip, a 99th percentile of capture to caption over twice its median, or a
camera whose share of captions is more than 20 % off the mean.

``others``: share of the machine's processor time that other processes took meanwhile. Where it is
not near 0, the latencies are not this program's alone.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from record import command, machine, spread, write_atomically

import edgecap
from edgecap.runtime.streams import Cameras, Event, Feed, Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.options import stream_threads

FPS = 30.0
LEAST_RATE = 15.0  # captions a second
MOST_SPREAD = 2.0  # 99th percentile over median
MOST_OFF = 0.2  # of the mean share
WARM_UP = 1.0  # seconds that are not counted


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--seconds", type=float, default=15.0, show_default=True, help="For each clip.")
@click.option("--threads", type=int)
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(clips: Path, seconds: float, threads: int | None, out: Path | None) -> None:
    """Stream the clips and record rates, latencies and shares."""
    captioner: Any = edgecap.load(threads=stream_threads(threads))
    options = StreamOptions(gate="none", duration=seconds)
    paths = sorted(clips.glob("*.mp4"))
    alone = {path.name: one(path, captioner, options) for path in paths}
    four = together(paths[:4], captioner, options)
    record = {
        "command": command("benchmarks/stream_rate.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "engine": captioner.engine_choice.engine,
        "threads": captioner.engine.threads,
        "model": captioner.name,
        "fps": FPS,
        "beams": captioner.options().beams,
        "clips": alone,
        "four_cameras": four,
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps({"clips": alone, "four_cameras": four}, indent=1))
    good = all(
        clip["captions_per_second"] >= LEAST_RATE and clip["p99_over_median"] <= MOST_SPREAD
        for clip in alone.values()
    )
    if not good or four["furthest_from_mean"] > MOST_OFF:
        raise SystemExit(1)


def one(path: Path, captioner: Any, options: StreamOptions) -> dict[str, Any]:
    """Numbers of one clip alone."""
    with open_source(path, loop=True, rate=FPS) as source, Others() as others:
        pipeline = Pipeline(source, captioner, options=options)
        events = list(pipeline)
    report = pipeline.report
    assert report is not None
    return {
        "captions_per_second": round(report.captions / report.seconds, 2),
        "stale": report.dropped["stale"],
        "others": others.share,
        **latency(events),
    }


class Others:
    """What other processes take of the machine while this is entered."""

    share = 0.0

    def __enter__(self) -> Others:
        self._begin = self._busy()
        return self

    def __exit__(self, *_: object) -> None:
        busy, own, total = (
            after - before for after, before in zip(self._busy(), self._begin, strict=True)
        )
        self.share = round(max(0.0, busy - own) / total, 4)

    @staticmethod
    def _busy() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        mine = psutil.Process().cpu_times()
        total = sum(times)
        return total - times.idle - times.iowait, mine.user + mine.system, total


def together(paths: list[Path], captioner: Any, options: StreamOptions) -> dict[str, Any]:
    """Numbers of several clips on one model."""
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_source(path, loop=True, rate=FPS)) for path in paths]
        cameras = Cameras([Feed(source) for source in sources], captioner, options=options)
        events = list(cameras)
    counts = Counter(Path(event.source).name for event in events)
    mean = sum(counts.values()) / len(paths)
    return {
        "captions": dict(counts),
        "captions_per_second": round(sum(counts.values()) / cameras.reports[0].seconds, 2),
        "furthest_from_mean": round(max(abs(n - mean) for n in counts.values()) / mean, 4),
        **latency(events),
    }


def latency(events: list[Event]) -> dict[str, Any]:
    """Capture to caption in milliseconds after the warm-up, and how old frames were."""
    begun = events[0].captured_at
    kept = [event.latency_ms for event in events if event.captured_at - begun >= WARM_UP]
    totals = np.array([each.total for each in kept])
    ages = np.array([each.capture_age for each in kept])
    half = len(ages) // 2
    found = spread(totals)
    return {
        "capture_to_caption_ms": found,
        "p99_over_median": round(found["p99"] / found["median"], 3),
        "frame_age_ms": {
            "first_half": spread(ages[:half]),
            "second_half": spread(ages[half:]),
        },
    }


if __name__ == "__main__":
    main()
