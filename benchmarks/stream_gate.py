"""What the gate skips and what it must not: hand-marked clips, and what a thumbnail costs.

    python benchmarks/stream_gate.py CLIPS --out benchmarks/records/stream_gate.json

CLIPS is a folder with ``entrance_camera_768x432.mp4`` and ``corridor_walking_480x270.mp4``. The
marks were made by looking at single frames. Exit code 1: fewer than 90 % of the frames of an
unchanged scene were skipped, an entrance was missed, or a thumbnail took over 0.3 ms.
"""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically

import edgecap
from edgecap.runtime.streams import Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.gate import changed_share, thumbnail
from edgecap.runtime.streams.options import stream_threads

# entered: first frame on which a part of a person is to be seen. noticed: a caption must be made
# from there within so many frames. unchanged: first and last frame of parts in which nothing
# happens but fidgeting: the room is empty (empty) or somebody stands still.
MARKS: dict[str, dict[str, Any]] = {
    "entrance_camera_768x432.mp4": {
        "entered": [60, 227, 502, 744, 921, 1234],
        "noticed_within": 10,  # one second
        "empty": [
            [0, 58], [210, 225], [458, 500], [712, 742], [882, 919], [1210, 1232], [1368, 1393],
        ],
        "standing": [
            [104, 172], [264, 424], [544, 612], [776, 840], [960, 1170], [1304, 1336],
        ],
    },
    # Two people walk towards the camera in every frame: nothing is unchanged and nobody enters.
    "corridor_walking_480x270.mp4": {
        "entered": [0], "noticed_within": 1, "empty": [], "standing": [],
    },
}  # fmt: skip
LEAST_SKIPPED = 0.9
MOST_MS = 0.3


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(clips: Path, out: Path | None) -> None:
    """Caption the marked clips frame by frame and compare what was captioned with the marks."""
    captioner: Any = edgecap.load(threads=stream_threads())
    results = {}
    for name, marks in MARKS.items():
        for gate in ("auto", "thumbnail"):
            results[f"{name}, gate {gate}"] = judge(clips / name, captioner, gate, marks)
    cost = thumbnail_cost()
    record = {
        "command": command("benchmarks/stream_gate.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "engine": captioner.engine_choice.engine,
        "threads": captioner.engine.threads,
        "marks": MARKS,
        "clips": results,
        "thumbnail_1080p_one_thread_ms": cost,
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps({"clips": results, "thumbnail": cost}, indent=1))
    usual = [result for name, result in results.items() if name.endswith("auto")]
    shares = [result["skipped_of_unchanged"] for result in usual if result["unchanged"]]
    missed = sum(len(result["entrances_missed"]) for result in usual)
    if min(shares) < LEAST_SKIPPED or missed or cost["median"] > MOST_MS:
        raise SystemExit(1)


def judge(path: Path, captioner: Any, gate: str, marks: dict[str, Any]) -> dict[str, Any]:
    """Numbers of one clip; every frame is shown to the gate, none is dropped."""
    with open_source(path, realtime=False) as source:
        pipeline = Pipeline(source, captioner, options=StreamOptions(gate=gate))
        captioned = [event.frame for event in pipeline]
    report = pipeline.report
    assert report is not None
    unchanged = {
        frame
        for first, last in (*marks["empty"], *marks["standing"])
        for frame in range(first, last + 1)
    }
    delays: list[int | None] = []
    for entered in marks["entered"]:
        after = [frame - entered for frame in captioned if frame >= entered]
        delays.append(after[0] if after else None)
    missed = [
        entered
        for entered, delay in zip(marks["entered"], delays, strict=True)
        if delay is None or delay > marks["noticed_within"]
    ]
    hit = len(unchanged & set(captioned))
    return {
        "frames": report.received,
        "captions": report.captions,
        "skipped": report.skipped,
        "drafts": report.drafts,
        "unchanged": len(unchanged),
        "captioned_of_unchanged": hit,
        "skipped_of_unchanged": round(1.0 - hit / len(unchanged), 4) if unchanged else None,
        "entrance_to_caption_frames": delays,
        "entrances_missed": missed,
    }


def thumbnail_cost() -> dict[str, float]:
    """Milliseconds for one 1080p frame: thumbnail and comparison, in one thread."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    generator = np.random.default_rng(0)
    # More pictures than the caches hold.
    frames = [generator.integers(0, 256, (1080, 1920, 3), np.uint8) for _ in range(12)]
    last = thumbnail(frames[0])
    times = []
    for index in range(600):
        begin = time.perf_counter()
        changed_share(thumbnail(frames[index % len(frames)]), last)
        times.append((time.perf_counter() - begin) * 1e3)
    cv2.setNumThreads(before)
    return spread(np.array(times[60:]))


if __name__ == "__main__":
    main()
