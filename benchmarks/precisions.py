"""A checkpoint in every precision: size, CIDEr, and the time of the encoder and of a decoder step.

    python benchmarks/precisions.py training/records/default/checkpoint \\
        --calibrate flickr8k:data/flickr8k=val --test flickr8k:data/flickr8k=test \\
        --out benchmarks/records/precisions.json

Sizes are those of the unpacked files. All precisions take turns picture by picture, so that a
change of the machine's speed hits all. Decoder steps are those of the engine that "auto" takes.
"""

from __future__ import annotations

import json
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically
from rich.progress import track

from edgecap.export.measure import caption_all
from edgecap.export.model import write_source
from edgecap.export.photographs import read_photographs
from edgecap.export.precision import PRECISIONS, Converter, PrecisionOptions
from edgecap.export.sources import open_source
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.image import resize_image
from edgecap.training.data import CaptionedImage, load_pixels
from edgecap.training.metrics import evaluate

CALIBRATION = 128


@click.command()
@click.argument("source")
@click.option("--calibrate", required=True, help="Photographs for activation ranges.")
@click.option("--test", required=True, help="Captioned photographs, NAME:FOLDER=SPLIT.")
@click.option("--count", default=500, show_default=True)
@click.option("--rounds", default=60, show_default=True)
@click.option("--beams", default=4, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path))
def main(
    source: str,
    calibrate: str,
    test: str,
    count: int,
    rounds: int,
    beams: int,
    threads: int,
    out: Path | None,
) -> None:
    """Measure SOURCE, a checkpoint or a float bundle."""
    opened = open_source(source)
    graphs = opened.graphs()
    few = read_photographs(calibrate, CALIBRATION).pixels(CALIBRATION)
    calibration = [resize_image(picture, opened.image) for picture in few]
    images = _captioned(test, count)
    with tempfile.TemporaryDirectory() as folder:
        captioners, rows = {}, {}
        for name in track(PRECISIONS, "precisions"):
            converter = Converter(
                *graphs, calibration, PrecisionOptions(name), threads, opened.quantize
            )
            made = converter.convert()
            path = Path(folder) / f"{name}.edgecap"
            write_source(path, opened, (made.encoder, made.decoder), made.quantisation)
            captioners[name] = Captioner(path, threads=threads, engine="auto")
            rows[name] = {
                "encoder": made.quantisation.encoder,
                "decoder": made.quantisation.decoder,
                "engine": captioners[name].engine_choice.lines()[0],
                "mb": round(sum(map(len, read_bundle(path).files.values())) / 1e6, 2),
                "layers_left_in_float": len(made.float_layers),
            }
        for name, figures in times(captioners, images, beams, rounds).items():
            rows[name].update(figures)
        for name, captioner in captioners.items():
            rows[name].update(scores(captioner, images))
    record: dict[str, Any] = {
        "command": command("benchmarks/precisions.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "pictures": len(images),
        "beams": beams,
        "threads": threads,
        "precisions": compared(rows),
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def times(
    captioners: dict[str, Captioner], images: list[CaptionedImage], beams: int, rounds: int
) -> dict[str, dict[str, Any]]:
    """Milliseconds of the encoder and of one step, and the ratio to float32 picture by picture."""
    first = next(iter(captioners.values()))
    pictures = [first.resize(load_pixels(image))[None] for image in images[:20]]
    table = np.zeros((rounds, len(captioners), 2))
    for number in range(-3, rounds):  # the first three warm up
        pixels = pictures[number % len(pictures)]
        for column, captioner in enumerate(captioners.values()):
            begin = time.perf_counter()
            encoded = captioner.engine.encode(pixels)
            encode = (time.perf_counter() - begin) * 1e3
            found = captioner.search(encoded, captioner.options(beams=beams))
            if number >= 0:
                table[number, column] = encode, found.step_ms / found.steps
    base = table[:, [*captioners].index("fp32")]
    return {
        name: {
            "encode_ms": spread(table[:, column, 0]),
            "step_ms": spread(table[:, column, 1]),
            "encoder_faster_than_fp32": _ratio(base[:, 0], table[:, column, 0]),
            "step_faster_than_fp32": _ratio(base[:, 1], table[:, column, 1]),
        }
        for column, name in enumerate(captioners)
    }


def scores(captioner: Captioner, images: list[CaptionedImage]) -> dict[str, float]:
    """CIDEr and BLEU-4 with the model's own decoding."""
    said = caption_all(captioner, [load_pixels(image) for image in images]).texts
    candidates = {image.id: text for image, text in zip(images, said, strict=True)}
    references = {image.id: list(image.captions) for image in images}
    corpus = evaluate(candidates, references, metrics=("BLEU", "CIDEr")).corpus
    return {name: round(corpus[name], 4) for name in ("CIDEr", "BLEU-4")}


def compared(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Size and CIDEr beside those of float32."""
    plain = rows["fp32"]
    for row in rows.values():
        row["smaller_than_fp32"] = round(plain["mb"] / row["mb"], 2)
        row["CIDEr_of_fp32"] = round(row["CIDEr"] / plain["CIDEr"], 4)
    return rows


def _ratio(base: np.ndarray, other: np.ndarray) -> float:
    return round(float(np.median(base / other)), 2)


def _captioned(spec: str, count: int) -> list[CaptionedImage]:
    found = read_photographs(spec, count)
    if not found.captioned:
        raise click.ClickException(f"{spec} has no captions; give NAME:FOLDER=SPLIT")
    return list(found.images)


if __name__ == "__main__":
    main()
