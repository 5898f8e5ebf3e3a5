"""Quality for each millisecond and megabyte: CIDEr on Flickr8k's test photographs against latency.

    python benchmarks/pareto.py make WORK --data ../shared/data/flickr8k      the bundles
    python benchmarks/pareto.py score WORK --data ../shared/data/flickr8k     captions and CIDEr
    python benchmarks/pareto.py time WORK --data ../shared/data/flickr8k      milliseconds, paired
    python benchmarks/pareto.py collect WORK --out benchmarks/records/pareto.json

Each part keeps what it did in WORK and goes on where it was. All points take turns photograph by
photograph. A point is a model in a precision, an engine and a beam width; the engine is the one
that "auto" takes unless the point names another.
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
from rich.progress import track

from edgecap.runtime.captioner import Captioner

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "training" / "records"
BEAMS = (1, 2, 3, 4, 6)
CALIBRATION = 128
CHUNK = 8  # pictures encoded together
# (name, checkpoint, precision): the shipped bundle stands for default in int8.
MADE = (
    ("default fp32", "default", "fp32"),
    ("default int8-dynamic", "default", "int8-dynamic"),
    ("default int4-weights", "default", "int4-weights"),
    ("cross-entropy fp32", "cross-entropy", "fp32"),
    ("cross-entropy int8", "cross-entropy", "int8"),
)
SHIPPED = "default int8"
# (name, engine or None for auto)
CONFIGURATIONS = (
    (SHIPPED, None),
    *((name, None) for name, _, _ in MADE),
    (SHIPPED, "onnxruntime"),
    ("default fp32", "onnxruntime"),
)
# Trained once, but no weights were kept: their scores stand, and no time can be measured.
WITHOUT_WEIGHTS = ("show-and-tell", "show-attend-tell-soft", "show-attend-tell-hard", "clip-gpt")
DEFAULT_BEAMS = 4


@click.group()
def main() -> None:
    """Make, score, time, collect."""


@main.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Folder of Flickr8k.")
def make(work: Path, data: str) -> None:
    """Write the bundles of MADE that WORK lacks."""
    from edgecap.export.model import write_source
    from edgecap.export.photographs import read_photographs
    from edgecap.export.precision import Converter, PrecisionOptions
    from edgecap.export.sources import open_source
    from edgecap.runtime.image import resize_image

    work.mkdir(parents=True, exist_ok=True)
    for name, checkpoint, precision in MADE:
        path = bundle_path(work, name)
        if path.exists():
            continue
        opened = open_source(str(RECORDS / checkpoint / "checkpoint"))
        few = read_photographs(f"flickr8k:{data}=val", CALIBRATION).pixels(CALIBRATION)
        calibration = [resize_image(picture, opened.image) for picture in few]
        converter = Converter(
            *opened.graphs(), calibration, PrecisionOptions(precision), 2, opened.quantize
        )
        made = converter.convert()
        write_source(path, opened, (made.encoder, made.decoder), made.quantisation)
        click.echo(f"{name}: {path.stat().st_size / 1e6:.1f} MB")


@main.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Folder of Flickr8k.")
@click.option("--count", default=500, show_default=True)
@click.option("--seconds", default=270.0, show_default=True, help="Stop after so long; call again.")
@click.option("--validation", is_flag=True, help="The shipped bundle alone on validation's first.")
def score(work: Path, data: str, count: int, seconds: float, validation: bool) -> None:
    """CIDEr of every configuration and beam width."""
    end = time.monotonic() + seconds
    images = captioned(data, count, "val" if validation else "test")
    references = {image.id: list(image.captions) for image in images}
    for name, engine in CONFIGURATIONS[:1] if validation else CONFIGURATIONS:
        kind = "val" if validation else "score"
        target = work / f"{kind}-{slug(name, engine)}.json"
        if target.exists():
            continue
        captioner = load(work, name, engine)
        said = captions(captioner, images, work / f"part-{target.name}", end)
        if any(len(texts) < len(images) for texts in said.values()):
            click.echo("call again for the rest")
            return
        facts = {"engine": captioner.engine_choice.engine, "CIDEr": ciders(said, references)}
        write_atomically(target, json.dumps(facts, indent=1) + "\n")
        means = {beams: round(mean(found), 4) for beams, found in facts["CIDEr"].items()}
        click.echo(f"{slug(name, engine)}: {means}")


def captions(
    captioner: Captioner, images: list[Any], part: Path, end: float
) -> dict[str, dict[str, str]]:
    """Beam width -> picture -> caption, as far as time allows. part : keeps what is done"""
    from edgecap.training.data import load_pixels

    said: dict[str, dict[str, str]] = {str(beams): {} for beams in BEAMS}
    if part.exists():
        said = json.loads(part.read_text())
    done = min(map(len, said.values()))
    for start in track(range(done, len(images), CHUNK), part.stem):
        if time.monotonic() > end:
            break
        chunk = images[start : start + CHUNK]
        encoded = captioner.encode([load_pixels(image) for image in chunk])
        for beams in BEAMS:
            found = captioner.search(encoded, captioner.options(beams=beams)).hypotheses
            for image, hypotheses in zip(chunk, found, strict=True):
                said[str(beams)][image.id] = captioner.tokenizer.decode(hypotheses[0].tokens)
        write_atomically(part, json.dumps(said))
    return said


def ciders(
    said: dict[str, dict[str, str]], references: dict[str, list[str]]
) -> dict[str, dict[str, float]]:
    """Beam width -> picture -> CIDEr."""
    from edgecap.training.metrics import evaluate

    return {
        beams: dict(evaluate(texts, references, metrics=("CIDEr",)).per_image["CIDEr"])
        for beams, texts in said.items()
    }


@main.command(name="time")
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="Folder of Flickr8k.")
@click.option("--count", default=60, show_default=True)
@click.option("--threads", default=2, show_default=True)
def take_times(work: Path, data: str, count: int, threads: int) -> None:
    """Milliseconds from pixels to caption, all points in turn on each photograph."""
    from edgecap.training.data import load_pixels

    pictures = [load_pixels(image) for image in captioned(data, count)]
    captioners = {
        (name, engine): load(work, name, engine, threads) for name, engine in CONFIGURATIONS
    }
    points = [(key, beams) for key in captioners for beams in BEAMS]
    table = np.zeros((len(pictures), len(points)))
    for number in range(-2, len(pictures)):  # the first two warm up
        for column, (key, beams) in enumerate(points):
            if beams == BEAMS[0]:  # the threads of the captioner before are still spinning
                captioners[key](pictures[max(number, 0)], channels="RGB", beams=beams)
            begin = time.perf_counter()
            captioners[key](pictures[max(number, 0)], channels="RGB", beams=beams)
            if number >= 0:
                table[number, column] = (time.perf_counter() - begin) * 1e3
    base = table[:, points.index(((SHIPPED, None), DEFAULT_BEAMS))]
    rows = [
        {
            "model": key[0],
            "engine": captioners[key].engine_choice.engine,
            "asked": key[1] or "auto",
            "runs": captioners[key].engine_choice.summary,
            "beams": beams,
            "ms": spread(table[:, column]),
            "of_default": round(float(np.median(table[:, column] / base)), 3),
        }
        for column, (key, beams) in enumerate(points)
    ]
    facts = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "photographs": len(pictures),
        "threads": threads,
        "rows": rows,
    }
    write_atomically(work / "times.json", json.dumps(facts, indent=1) + "\n")
    for row in rows:
        click.echo(f"{row['model']} {row['engine']} {row['beams']}: {row['ms']}")


@main.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path))
def collect(work: Path, out: Path | None) -> None:
    """The record of what WORK has."""
    times = json.loads((work / "times.json").read_text())
    points = []
    base = scores_of(work, SHIPPED, None)["CIDEr"][str(DEFAULT_BEAMS)]
    for row in times.pop("rows"):
        asked = None if row["asked"] == "auto" else row["asked"]
        found = scores_of(work, row["model"], asked)
        if found["engine"] != row["engine"]:
            raise click.ClickException(f"{row['model']} was scored by {found['engine']}; do again")
        size = bundle_path(work, row["model"]).stat().st_size
        scores = found["CIDEr"][str(row["beams"])]
        better = difference(scores, base)
        points.append(
            {**row, "mb": round(size / 1e6, 2), "CIDEr": round(mean(scores), 4), "better": better}
        )
    record = {
        "command": command("benchmarks/pareto.py"),
        **times,
        "pictures_scored": len(base),
        "default": {"model": SHIPPED, "asked": "auto", "beams": DEFAULT_BEAMS},
        "points": marked(points),
        "validation": validation_of(work),
        "without_weights": [released(name) for name in WITHOUT_WEIGHTS],
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def scores_of(work: Path, name: str, engine: str | None) -> dict[str, Any]:
    """What ``score`` kept of a configuration."""
    found: dict[str, Any] = json.loads((work / f"score-{slug(name, engine)}.json").read_text())
    return found


def validation_of(work: Path) -> dict[str, Any]:
    """The shipped bundle's CIDEr on validation photographs by beams, and above the default's."""
    found = json.loads((work / f"val-{slug(SHIPPED, None)}.json").read_text())["CIDEr"]
    base = found[str(DEFAULT_BEAMS)]
    return {
        "pictures": len(base),
        "CIDEr": {beams: round(mean(scores), 4) for beams, scores in found.items()},
        "better": {beams: difference(scores, base) for beams, scores in found.items()},
    }


def mean(scores: dict[str, float]) -> float:
    """CIDEr of a set of pictures."""
    return float(np.mean(list(scores.values())))


def difference(scores: dict[str, float], base: dict[str, float]) -> list[float]:
    """Mean of CIDEr above that of the default, and its 95 % interval over pictures (bootstrap)."""
    paired = np.array([scores[name] - base[name] for name in base])
    rng = np.random.default_rng(0)
    means = paired[rng.integers(0, len(paired), (2000, len(paired)))].mean(axis=1)
    return [round(float(x), 4) for x in (paired.mean(), *np.percentile(means, (2.5, 97.5)))]


def marked(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each point with what dominates it: no worse in CIDEr and in time (or size), better in one."""
    for point in points:
        for axis in ("ms", "mb"):
            point[f"dominated_by_{axis}"] = [
                other_name(other) for other in points if dominates(other, point, axis)
            ]
    return points


def dominates(other: dict[str, Any], point: dict[str, Any], axis: str) -> bool:
    """Whether ``other`` is at least as good on both axes and better on one."""
    cost, mine = measure(other, axis), measure(point, axis)
    no_worse = cost <= mine and other["CIDEr"] >= point["CIDEr"]
    return no_worse and (cost < mine or other["CIDEr"] > point["CIDEr"])


def measure(point: dict[str, Any], axis: str) -> float:
    """A point's milliseconds (median) or megabytes."""
    return float(point["ms"]["median"] if axis == "ms" else point["mb"])


def other_name(point: dict[str, Any]) -> str:
    """A point in words."""
    return f"{point['model']}, {point['engine']}, {point['beams']} beams"


def released(name: str) -> dict[str, Any]:
    """What a model scored on the test photographs when it was released, by its record."""
    found = json.loads((RECORDS / name / "release.json").read_text())
    scores = found["metrics"]["flickr8k"]["test"]
    return {
        "model": name,
        "CIDEr": {precision: round(row["CIDEr"], 4) for precision, row in scores.items()},
        "pictures": round(min(row["images"] for row in scores.values())),
        "mb_int8": round(found["bundle_bytes"] / 1e6, 2),
    }


def bundle_path(work: Path, name: str) -> Path:
    """Where the bundle of a model is."""
    if name == SHIPPED:
        return ROOT / "edgecap" / "models" / "default.edgecap"
    return work / f"{slug(name, None)}.edgecap"


def load(work: Path, name: str, engine: str | None, threads: int = 2) -> Captioner:
    """A captioner of a configuration."""
    return Captioner(bundle_path(work, name), threads=threads, engine=engine)


def captioned(data: str, count: int, split: str = "test") -> list[Any]:
    """The first photographs of a split."""
    from edgecap.export.photographs import read_photographs

    return list(read_photographs(f"flickr8k:{data}={split}", count).images)


def slug(name: str, engine: str | None) -> str:
    """For file names."""
    return f"{name} {engine or ''}".strip().replace(" ", "-")


if __name__ == "__main__":
    main()
