"""What is told to come nearer on hand-marked clips, and what a look costs.

    python benchmarks/stream_nearness.py CLIPS MODEL --out benchmarks/records/stream_nearness.json

CLIPS is a folder of clips, MODEL a detector (docs/profiles.md). Each clip is looked at forwards
and, from its end to its beginning, backwards: who walked away then comes nearer. The rule was made
looking at the clips forwards; backwards it was never fitted to. Exit code 1: forwards an approach
was missed, or something was told that does not come nearer.
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

from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.detector import Detections, Detector
from edgecap.runtime.streams.nearness import Approaches
from edgecap.runtime.streams.profiles import load_profile

PROFILE = "assistive"
# How many things come nearer, by looking at single frames. Two people walk up to the camera of the
# corridor; in the other clips people and cars pass by, go away, turn or stand. Backwards six people
# walk up to the camera of the entrance, a worker and a woman to those of theirs; of the cars on the
# two car parks, which the cameras see from high above, no number is given.
APPROACHES = {"corridor_walking_480x270.mp4": 2}
BACKWARDS = {
    "entrance_camera_768x432.mp4": 6,
    "worker_zone_480x270.mp4": 1,
    "store_aisle_480x270.mp4": 1,
}
UNMARKED = ("street_480x270.mp4", "traffic_camera_768x432.mp4")


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(clips: Path, model: Path, out: Path | None) -> None:
    """Look at every clip in both directions and compare with the marks."""
    detector = Detector(model)
    results: dict[str, Any] = {}
    times: list[float] = []
    wrong = 0
    for path in sorted(clips.glob("*.mp4")):
        looks, spent = see(path, detector)
        times += spent
        end = looks[-1][0]
        back = [(end - now, found) for now, found in reversed(looks)]
        results[path.name] = {
            "seconds": round(end, 1),
            "looks": len(looks),
            "approaches": APPROACHES.get(path.name, 0),
            "told": told(looks),
            "backwards_approaches": (
                None if path.name in UNMARKED else BACKWARDS.get(path.name, 0)
            ),
            "backwards_told": told(back),
        }
        wrong += len(results[path.name]["told"]) != results[path.name]["approaches"]
    record = {
        "command": command("benchmarks/stream_nearness.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "profile": PROFILE,
        "within_s": float(load_profile(PROFILE).nearness.within),
        "detector": model.name,
        "clips": results,
        "look_one_thread_ms": spread(np.array(times)),
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(record, indent=1))
    raise SystemExit(int(wrong > 0))


def see(path: Path, detector: Detector) -> tuple[list[tuple[float, Detections]], list[float]]:
    """What is in a clip, five looks a second, and the milliseconds of each look."""
    looks: list[tuple[float, Detections]] = []
    times = []
    every = float(load_profile(PROFILE).nearness.every)
    with open_source(path, realtime=False) as source:
        for frame in source:
            if looks and frame.seconds - looks[-1][0] < every * 0.99:
                continue
            begin = time.perf_counter()
            found = detector(frame.image)
            times.append((time.perf_counter() - begin) * 1e3)
            looks.append((frame.seconds, found))
    return looks, times


def told(looks: list[tuple[float, Detections]]) -> list[dict[str, Any]]:
    """What a profile tells of them."""
    part = load_profile(PROFILE).nearness
    watch = Approaches(
        part.things, within=part.within, sure=part.sure, size=part.size, again=part.again
    )
    return [
        {"at": round(now, 2), **thing._asdict()}
        for now, found in looks
        for thing in watch.follow(found, now)
    ]


if __name__ == "__main__":
    main()
