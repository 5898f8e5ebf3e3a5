"""Does a long stream keep its memory? Captions a looped video and samples the process's RSS.

    python benchmarks/soak_stream.py clip.mp4 --minutes 60 --out benchmarks/records/soak_stream.json

The record says what was run, on what machine, and what came out; it is written whole or not at
all. Exit code 1: memory grew by more than the limit after the first minute.
"""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
from record import command, machine, write_atomically

import edgecap
from edgecap.runtime.streams import Event, Pipeline, StreamOptions, open_source

LIMIT_MB = 5.0  # growth allowed after the first minute
WARM_UP = 60.0  # seconds
LONG = ("rss_samples", "frame_age_by")  # lists that are not printed
KEPT = 1 << 18  # latencies kept, the newest ones: filled at the start so that they add no memory


class Latencies:
    """A sink that keeps the newest latencies in memory it owns from the start."""

    name = "latencies"

    def __init__(self) -> None:
        self._values = np.full((KEPT, 4), -1.0)
        self._count = 0
        self._begun = time.monotonic()

    def write(self, event: Event) -> None:
        """Keep capture-to-event and captioner-only milliseconds."""
        latency = event.latency_ms
        own = latency.preprocess + latency.encode + latency.decode
        moment = time.monotonic() - self._begun
        self._values[self._count % KEPT] = (latency.total, own, latency.capture_age, moment)
        self._count += 1

    def close(self) -> None:
        """Nothing to free."""

    def ages(self) -> list[tuple[int, float, float]]:
        """For each minute: its number, and the median and greatest age of a frame in ms."""
        values = self._values[: min(self._count, KEPT)]
        minutes = (values[:, 3] // 60.0).astype(int)
        return [
            (
                int(minute),
                round(float(np.median(values[minutes == minute, 2])), 3),
                round(float(values[minutes == minute, 2].max()), 3),
            )
            for minute in np.unique(minutes)
        ]

    def summary(self) -> dict[str, float]:
        """Medians and 99th percentiles in milliseconds."""
        values = self._values[: min(self._count, KEPT)]
        if not len(values):
            return {}
        figures = {}
        for column, name in enumerate(("frame_to_event", "captioner")):
            figures[f"{name}_median_ms"] = round(float(np.median(values[:, column])), 3)
            figures[f"{name}_p99_ms"] = round(float(np.percentile(values[:, column], 99)), 3)
        return figures


class Sampler:
    """Samples this process's resident memory every ``every`` seconds in a thread."""

    def __init__(self, every: float) -> None:
        self.samples: list[tuple[float, float]] = []  # seconds, MB
        self._every = every
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rss sampler")

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _work(self) -> None:
        process = psutil.Process()
        begun = time.monotonic()
        while True:
            rss = process.memory_info().rss / 1e6
            self.samples.append((round(time.monotonic() - begun, 1), round(rss, 3)))
            if self._done.wait(self._every):
                return


@click.command()
@click.argument("video", type=click.Path(exists=True, dir_okay=False))
@click.option("--model", default="default", show_default=True)
@click.option("--minutes", type=float, default=60.0, show_default=True)
@click.option("--every", type=float, default=10.0, show_default=True, help="Seconds a sample.")
@click.option("--beams", type=int)
@click.option("--threads", type=int)
@click.option("--gate", type=click.Choice(["auto", "none", "thumbnail"]), default="auto")
@click.option("--min-interval", type=float, default=0.0)
@click.option("--rate", type=float, help="Frames per second; the video's own if not given.")
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(
    video: str,
    model: str,
    minutes: float,
    every: float,
    beams: int | None,
    threads: int | None,
    gate: str,
    min_interval: float,
    rate: float | None,
    out: Path | None,
) -> None:
    """Stream VIDEO in a loop for --minutes and record how memory went."""
    options = StreamOptions(gate=gate, min_interval=min_interval, duration=minutes * 60.0)
    latencies = Latencies()
    captioner = edgecap.load(model, threads=threads)
    with open_source(video, loop=True, rate=rate) as source, Sampler(every) as sampler:
        pipeline = Pipeline(
            source, captioner, sinks=[latencies], options=options, decoding={"beams": beams}
        )
        report = pipeline.run()
        threads_in_use = threading.active_count()
    figures = growth(sampler.samples)
    record: dict[str, Any] = {
        "command": command("benchmarks/soak_stream.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "video": Path(video).name,
        "model": captioner.name,
        "engine": captioner.engine_choice.engine,
        "seconds": round(report.seconds, 1),
        "ended": report.ended,
        "frames": report.received,
        "captions": report.captions,
        "skipped": report.skipped,
        "dropped": report.dropped,
        "threads_at_the_end": threads_in_use,
        **latencies.summary(),
        **figures,
        "frame_age_by_minute_median_most_ms": latencies.ages(),
        "rss_samples_s_mb": sampler.samples,
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1, allow_nan=False) + "\n")
    short = {key: value for key, value in record.items() if not key.startswith(LONG)}
    click.echo(json.dumps(short, indent=1))
    if figures.get("growth_mb", 0.0) > LIMIT_MB:
        raise SystemExit(1)


def growth(samples: list[tuple[float, float]]) -> dict[str, float]:
    """How far RSS rose over what it was at the end of the first minute, in MB (10^6 bytes)."""
    later = [(seconds, rss) for seconds, rss in samples if seconds >= WARM_UP]
    figures = {"rss_start_mb": samples[0][1], "rss_end_mb": samples[-1][1]}
    if later:
        figures["rss_after_first_minute_mb"] = later[0][1]
        figures["rss_most_mb"] = max(rss for _, rss in later)
        figures["growth_mb"] = round(figures["rss_most_mb"] - later[0][1], 3)
        figures["limit_mb"] = LIMIT_MB
    return figures


if __name__ == "__main__":
    main()
