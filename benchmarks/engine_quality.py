"""What engines on the CPU say of the same photographs: scores, equal captions, and whether stated
confidence still means what it was calibrated to mean.

    python benchmarks/engine_quality.py flickr8k:data/flickr8k=val \\
        --out benchmarks/records/engine_quality.json

Confidence was fitted on captions of ONNX Runtime. A caption fits when its CIDEr reaches that of the
weakest quarter of people's own captions, as in the fit.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, write_atomically

from edgecap.export.measure import NO_PHOTOGRAPHS, caption_all, weakest_quarter
from edgecap.export.photographs import read_photographs
from edgecap.models import resolve
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.confidence import confidence
from edgecap.runtime.engines.native_step import PRECISIONS, NativeStepEngine
from edgecap.training.confidence_fit import reliability
from edgecap.training.data import CaptionedImage, load_pixels
from edgecap.training.metrics import evaluate
from edgecap.training.no_photographs import no_photographs

REFERENCE = "onnxruntime"


@click.command()
@click.argument("photographs")
@click.option("--model", default="default", show_default=True)
@click.option("--count", default=10_000, show_default=True, help="At most so many photographs.")
@click.option("--engine", "engines", multiple=True, default=(REFERENCE, *PRECISIONS))
@click.option("--out", type=click.Path(path_type=Path))
def main(photographs: str, model: str, count: int, engines: tuple[str, ...], out: Path) -> None:
    """Caption PHOTOGRAPHS, NAME:FOLDER=SPLIT, with each engine."""
    found = read_photographs(photographs, count)
    if not found.captioned:
        raise click.ClickException(f"{photographs} has no captions; give NAME:FOLDER=SPLIT")
    images = list(found.images)
    bundle = read_bundle(resolve(model))
    names = [REFERENCE, *(name for name in engines if name != REFERENCE)]
    rows: dict[str, dict[str, Any]] = {}
    texts: dict[str, list[str]] = {}
    for name in names:
        rows[name], texts[name] = measure(bundle, name, images)
        rows[name]["captions_equal"] = sum(
            a == b for a, b in zip(texts[name], texts[REFERENCE], strict=True)
        )
    record = {
        "command": command("benchmarks/engine_quality.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "photographs": len(images),
        "fits_from_cider": round(weakest_quarter(images), 3),
        "floor": bundle.manifest.confidence.floor if bundle.manifest.confidence else None,
        "engines": rows,
    }
    text = json.dumps(record, indent=1)
    click.echo(text)
    if out is not None:
        write_atomically(out, text + "\n")


def measure(
    bundle: Bundle, name: str, images: list[CaptionedImage]
) -> tuple[dict[str, Any], list[str]]:
    """Scores and calibration of one engine, and its captions."""
    engine = REFERENCE if name == REFERENCE else NativeStepEngine(bundle, precision=name)
    captioner = Captioner(bundle, engine=engine)
    said = caption_all(captioner, [load_pixels(image) for image in images])
    scores = evaluate(
        {image.id: text for image, text in zip(images, said.texts, strict=True)},
        {image.id: list(image.captions) for image in images},
        metrics=("BLEU", "CIDEr"),
    )
    row: dict[str, Any] = {key: round(scores.corpus[key], 4) for key in ("CIDEr", "BLEU-4")}
    params = bundle.manifest.confidence
    if params is None:
        return row, said.texts
    stated = np.array([confidence(features, params) for features in said.features])
    cider = np.array([scores.per_image["CIDEr"][image.id] for image in images])
    quality = reliability(stated, cider >= weakest_quarter(images))
    others = caption_all(captioner, no_photographs(NO_PHOTOGRAPHS, captioner.image_size, 0))
    nothing = np.array([confidence(features, params) for features in others.features])
    row |= {
        "expected_calibration_error": round(quality.expected_error, 4),
        "brier": round(quality.brier, 4),
        "photographs_under_floor": round(float((stated < params.floor).mean()), 4),
        "no_photographs_under_floor": round(float((nothing < params.floor).mean()), 4),
    }
    return row, said.texts


if __name__ == "__main__":
    main()
