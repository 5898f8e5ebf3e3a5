"""How latency grows: threads, beams, batch, caption length, picture size, cameras.

    python benchmarks/scaling.py CLIPS --curve threads --curve beams ... \\
        --out benchmarks/records/scaling.json

Each curve is measured alone, its points in turn, round by round; a curve that is asked for replaces
that of the record, the others stay. Photographs are those of scikit-image. CLIPS is a folder of
videos for the cameras.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from record import command, machine, spread, write_atomically
from skimage import data

import edgecap
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.streams import Cameras, Feed, StreamOptions, open_source

NAMES = ("cat", "coffee", "astronaut", "rocket", "chelsea")
THREADS = (1, 2)
BEAMS = (1, 2, 3, 4, 6, 8, 10)
BATCHES = (1, 2, 4, 8, 16, 32)
LENGTHS = (2, 4, 6, 8, 10, 12, 14, 16, 18)
SIDES = (224, 448, 896, 1792, 3584)  # pixels of a square photograph's side
CAMERAS = (1, 2, 4, 8)
FPS = 30.0
SECONDS = 8.0  # of each number of cameras
Point = tuple[int, Callable[[int], Any]]


@click.command()
@click.argument("clips", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--curve", "asked", multiple=True, help="Which; all if none is given.")
@click.option("--rounds", default=40, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(clips: Path, asked: tuple[str, ...], rounds: int, out: Path | None) -> None:
    """Measure curves with the default model and the engine that auto takes."""
    curves = {name: found for name, found in CURVES.items() if not asked or name in asked}
    if unknown := set(asked) - set(CURVES):
        raise click.UsageError(f"no curve {', '.join(unknown)}; give some of {', '.join(CURVES)}")
    record: dict[str, Any] = {"curves": {}}
    if out is not None and out.exists():
        record = json.loads(out.read_text())
    for name, take in curves.items():
        record["curves"][name] = {
            "command": command("benchmarks/scaling.py"),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "engine": edgecap.load().engine_choice.engine,
            **take(clips, rounds),
        }
        click.echo(json.dumps(record["curves"][name], indent=1))
    record["machine"] = machine()
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")


def photographs() -> list[np.ndarray]:
    """uint8 RGB."""
    return [getattr(data, name)() for name in NAMES]


def curve(points: list[Point], rounds: int) -> list[dict[str, Any]]:
    """Milliseconds of every point, all in turn."""
    times = np.zeros((rounds, len(points)))
    steps = np.zeros((rounds, len(points)))
    loads = np.zeros((rounds, len(points)))
    for turn in range(-3, rounds):  # the first three warm up
        for column, (_, call) in enumerate(points):
            begin = time.perf_counter()
            caption = call(turn)
            if turn >= 0:
                times[turn, column] = (time.perf_counter() - begin) * 1e3
                first = caption[0] if isinstance(caption, list) else caption
                steps[turn, column] = first.timings.steps
                loads[turn, column] = first.timings.load + first.timings.preprocess
    return [
        {
            "at": at,
            "ms": spread(times[:, i]),
            "steps": round(float(steps[:, i].mean()), 2),
            "load_and_resize_ms": round(float(np.median(loads[:, i])), 3),
        }
        for i, (at, _) in enumerate(points)
    ]


def threads(clips: Path, rounds: int) -> dict[str, Any]:
    """Threads of encoder and decoder."""
    pictures = photographs()
    captioners = {count: edgecap.load(threads=count) for count in THREADS}

    def call(count: int) -> Callable[[int], Any]:
        return lambda turn: captioners[count](pictures[turn % len(pictures)], channels="RGB")

    return {"unit": "threads", "points": curve([(n, call(n)) for n in THREADS], rounds)}


def with_options(name: str, values: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """A curve over an option of the captioner."""
    captioner, pictures = edgecap.load(threads=2), photographs()

    def call(value: int) -> Callable[[int], Any]:
        given = {"max_new_tokens": value, "min_new_tokens": value} if name == "tokens" else {}
        given = given or {name: value}
        return lambda turn: captioner(pictures[turn % len(pictures)], channels="RGB", **given)

    return {"unit": name, "points": curve([(n, call(n)) for n in values], rounds)}


def beams(clips: Path, rounds: int) -> dict[str, Any]:
    """Beam width."""
    return with_options("beams", BEAMS, rounds)


def length(clips: Path, rounds: int) -> dict[str, Any]:
    """Captions of exactly so many tokens, the end of the sentence among them."""
    return with_options("tokens", LENGTHS, rounds)


def batch(clips: Path, rounds: int) -> dict[str, Any]:
    """Pictures encoded and decoded together; milliseconds of the whole batch."""
    captioner = edgecap.load(threads=2)
    pictures = [captioner.resize(each) for each in photographs()]
    options = captioner.options()

    def call(count: int) -> Callable[[int], Any]:
        chosen = np.stack([pictures[i % len(pictures)] for i in range(count)])
        return lambda turn: captioner.decode(captioner.engine.encode(chosen), options)

    points = curve([(n, call(n)) for n in BATCHES], max(5, rounds // 4))
    for point in points:
        point["pictures_per_second"] = round(1e3 * point["at"] / point["ms"]["median"], 1)
    return {"unit": "pictures together, from resized pixels", "points": points}


def size(clips: Path, rounds: int) -> dict[str, Any]:
    """JPEG files of square photographs, decoded and captioned."""
    captioner = edgecap.load(threads=2)
    rgb = data.astronaut()
    files = {}
    for side in SIDES:
        pixels = cv2.resize(rgb, (side, side), interpolation=cv2.INTER_CUBIC)
        good, coded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        assert good
        files[side] = coded.tobytes()

    def call(side: int) -> Callable[[int], Any]:
        return lambda turn: captioner(files[side])

    points = curve([(side, call(side)) for side in SIDES], rounds)
    return {"unit": "pixels of the side of a square JPEG", "points": points}


def cameras(clips: Path, rounds: int) -> dict[str, Any]:
    """Clips at 30 frames a second, each a camera, no gate: every frame wants a caption."""
    captioner: Captioner = edgecap.load(threads=2)
    paths = sorted(clips.glob("*.mp4"))
    options = StreamOptions(gate="none", duration=SECONDS)
    points = []
    for count in CAMERAS:
        with contextlib.ExitStack() as stack:
            feeds = [
                Feed(stack.enter_context(open_source(path, loop=True, rate=FPS)))
                for path in paths[:count]
            ]
            together = Cameras(feeds, captioner, options=options)
            events = list(together)
        begun = events[0].captured_at
        kept = [e.latency_ms.total for e in events if e.captured_at - begun >= 1.0]
        each = [report.captions for report in together.reports]
        points.append(
            {
                "at": count,
                "ms": spread(np.array(kept)),
                "captions_per_second": round(sum(each) / together.reports[0].seconds, 1),
                "least_of_a_camera": round(min(each) / together.reports[0].seconds, 1),
            }
        )
    return {"unit": "cameras at 30 frames a second", "points": points}


CURVES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "threads": threads,
    "beams": beams,
    "batch": batch,
    "length": length,
    "size": size,
    "cameras": cameras,
}


if __name__ == "__main__":
    main()
