"""From a checkpoint to a released bundle: export, fit the confidence, measure, write the record."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecap.export.bundle import ExportOptions, export_bundles, replace_manifest
from edgecap.export.card import worst_captions, write_card
from edgecap.export.gate import Check, GateOptions, check_float, cider_drop, demand
from edgecap.export.measure import ConfidenceFit, fit_confidence, score
from edgecap.export.photographs import digest
from edgecap.export.sources import from_checkpoint
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.manifest import ExportRecord
from edgecap.training.corpus import SplitSpec, read_images
from edgecap.training.data import CaptionedImage, load_pixels
from edgecap.training.metrics import Scores, bootstrap
from edgecap.training.recipe import Recipe

# data set -> split -> precision -> metric -> value
Metrics = dict[str, dict[str, dict[str, dict[str, float]]]]
Worst = dict[str, list[dict[str, str]]]
PARITY = 50  # photographs that the float bundle is compared with its source on
REPORTED = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")


@dataclass(frozen=True)
class ReleaseOptions:
    """``tests`` are measured once, after everything else is fixed."""

    export: ExportOptions
    tests: tuple[SplitSpec, ...] = ()
    floor: float = 0.25  # confidence under which a caption is "(not sure)"
    float_checkpoint: Path | None = None  # what the checkpoint was fine-tuned for int8 from
    threads: int = 2
    about: str = ""  # the card's first paragraph
    gate: GateOptions = field(default_factory=GateOptions)


@dataclass(frozen=True)
class Release:
    bundle: Path
    float_bundle: Path
    record: dict[str, Any]
    checks: tuple[Check, ...]


def release(
    checkpoint: Path, recipe: Recipe, out: Path, record: Path, options: ReleaseOptions
) -> Release:
    """Export ``checkpoint`` to ``out`` (int8) and ``out`` with ``.float`` before the suffix.

    record : folder for the JSON record and the reliability diagram

    Raises ``DataError`` where a check fails; neither bundle is written then.
    """
    train = read_images(recipe.train)
    float_out = out.with_name(f"{out.stem}.float{out.suffix}")
    out.parent.mkdir(parents=True, exist_ok=True)
    # In the folder of the output: the last step is one move each.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        places = (Path(folder) / float_out.name, Path(folder) / out.name)
        made = export_bundles(checkpoint, train, *places, options.export, options.float_checkpoint)
        bundles = dict(zip(("float32", "int8"), made, strict=True))
        checks = _check_float(made[0], checkpoint, recipe, options)
        metrics, fits, captions, worst = _measured(bundles, recipe, options)
        data, split = _place(recipe.validation[0])
        scores = metrics[data][split]
        checks.append(
            cider_drop(scores["float32"], scores["int8"], f"{data}/{split}", options.gate)
        )
        demand(checks, checkpoint.name)
        proof = _proof(checks, train, options)
        for precision, bundle in bundles.items():
            _complete(bundle, metrics, fits[precision], proof)
        for place, final in zip(places, (float_out, out), strict=True):
            os.replace(place, final)
    written = _write_record(record, metrics, fits["int8"], captions, out)
    written["worst"] = worst
    card = write_card(read_bundle(out).manifest, written, options.about)
    (record / "card.md").write_text(card)
    return Release(out, float_out, written, tuple(checks))


def _check_float(
    bundle: Bundle, checkpoint: Path, recipe: Recipe, options: ReleaseOptions
) -> list[Check]:
    """The float bundle against the torch model that it was made of, on validation pictures."""
    source = from_checkpoint(options.float_checkpoint or checkpoint)
    images = read_images(recipe.validation[:1])[:PARITY]
    captioner = Captioner(bundle, threads=options.threads)
    pictures = [load_pixels(image) for image in images]
    checks = check_float(captioner, source.engine, source.reference, pictures, options.gate)
    demand(checks, checkpoint.name)  # before the long part
    return checks


def _measured(
    bundles: dict[str, Bundle], recipe: Recipe, options: ReleaseOptions
) -> tuple[Metrics, dict[str, ConfidenceFit], dict[str, dict[str, str]], Worst]:
    """Scores on every list, the fit of the confidence, int8's test captions and its worst ones."""
    held = {_place(spec): read_images([spec]) for spec in recipe.validation}
    tests = {_place(spec): read_images([spec]) for spec in options.tests}
    metrics: Metrics = {}
    fits: dict[str, ConfidenceFit] = {}
    captions: dict[str, dict[str, str]] = {}
    worst: Worst = {}
    for precision, bundle in bundles.items():
        captioner = Captioner(bundle, threads=options.threads)
        validated = {place: score(captioner, images) for place, images in held.items()}
        first = next(iter(held))
        fits[precision] = fit_confidence(
            captioner,
            held[first],
            *validated[first],
            floor=options.floor,
            seed=options.export.seed,
            fitted_on=f"{'/'.join(first)} and generated pictures that are no photographs",
        )
        results = {place: scores for place, (scores, _) in validated.items()}
        for place, images in tests.items():
            results[place], measured = score(captioner, images)
            if precision == "int8":
                captions["/".join(place)] = _by_name(images, measured.texts)
                worst["/".join(place)] = worst_captions(images, measured.texts, results[place])
        for (data, split), scores in results.items():
            metrics.setdefault(data, {}).setdefault(split, {})[precision] = _corpus(scores)
    return metrics, fits, captions, worst


def _proof(
    checks: Sequence[Check], train: Sequence[CaptionedImage], options: ReleaseOptions
) -> ExportRecord:
    export = options.export
    count = min(export.calibration_images, len(train))
    order = np.random.default_rng(export.seed).permutation(len(train))[:count]
    return ExportRecord(
        verdict="passed",
        checks=tuple(str(check) for check in checks),
        photographs=count,
        photographs_sha256=digest([train[i] for i in order]),
        command=export.provenance.get("command", ""),
    )


def _place(spec: SplitSpec) -> tuple[str, str]:
    """The data set's folder name and the split, with its part where it is one."""
    split = spec.split if spec.part == "all" else f"{spec.split}-{spec.part}-{spec.every}"
    return Path(spec.data.partition(":")[2]).name, split


def _corpus(scores: Scores) -> dict[str, float]:
    rounded = {n: round(scores.corpus[n], 4) for n in REPORTED if n in scores.corpus}
    interval = bootstrap(scores)["CIDEr"]
    return {
        **rounded,
        "images": float(len(scores.ids)),
        "CIDEr-low": round(interval.low, 4),
        "CIDEr-high": round(interval.high, 4),
    }


def _complete(bundle: Bundle, metrics: Metrics, fit: ConfidenceFit, proof: ExportRecord) -> None:
    manifest = msgspec.structs.replace(
        bundle.manifest, metrics=metrics, confidence=fit.spec, export=proof
    )
    replace_manifest(bundle, manifest)


def _by_name(images: Sequence[CaptionedImage], texts: Sequence[str]) -> dict[str, str]:
    return {image.id: text for image, text in zip(images, texts, strict=True)}


def _write_record(
    folder: Path,
    metrics: Metrics,
    fit: ConfidenceFit,
    captions: dict[str, dict[str, str]],
    out: Path,
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "bundle": out.name,
        "bundle_bytes": out.stat().st_size,
        "metrics": metrics,
        "confidence": msgspec.to_builtins(fit.spec),
        "reliability": asdict(fit.on_validation),
        "test_captions": captions,
    }
    part = folder / "release.json.part"
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, folder / "release.json")
    _plot_reliability(folder / "reliability.png", fit)
    return record


def _plot_reliability(path: Path, fit: ConfidenceFit) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    r = fit.on_validation
    figure, axes = pyplot.subplots(figsize=(4.5, 4.5))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    axes.plot(r.confidence, r.fits, "o-")
    axes.set(
        xlabel="stated confidence",
        ylabel="share of captions that fit",
        title=f"validation, expected calibration error {r.expected_error:.3f}",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
