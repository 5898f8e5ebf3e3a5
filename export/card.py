"""The model card of a release: scores, confidence, data and licences, known failures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgecap.runtime.manifest import Manifest
from edgecap.training.data import CaptionedImage
from edgecap.training.metrics import Scores

COLUMNS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE")
WORST = 5


def worst_captions(
    images: Sequence[CaptionedImage], texts: Sequence[str], scores: Scores
) -> list[dict[str, str]]:
    """The captions with the lowest CIDEr, the first of equal ones by name."""
    cider = scores.per_image["CIDEr"]
    pairs = sorted(zip(images, texts, strict=True), key=lambda p: (cider[p[0].id], p[0].id))
    return [
        {"picture": image.id, "caption": text, "person": image.captions[0]}
        for image, text in pairs[:WORST]
    ]


def write_card(manifest: Manifest, record: dict[str, Any], about: str) -> str:
    """Markdown. record : what ``release`` measured; about : what the model is, in words"""
    parts = [f"# The model `{manifest.name}`", about.strip(), _scores(manifest)]
    confidence = manifest.confidence
    if confidence is not None:
        quality = confidence.quality
        parts.append(
            "## Confidence\n\nA caption counts as fitting when its CIDEr against people's captions "
            "reaches that of the weakest\nquarter of people's own captions "
            f"({quality['fits_from_cider']:.2f}). Fitted on {confidence.fitted_on}.\nExpected "
            f"calibration error there {quality['expected_calibration_error']:.3f}. Under the floor "
            f"of {confidence.floor:g} are {quality['photographs_under_floor']:.1%} of those\n"
            f"photographs and {quality['no_photographs_under_floor']:.1%} of the generated "
            "pictures that are none."
        )
    data = "\n".join(f"- {entry.name}: {entry.licence}." for entry in manifest.training_data)
    parts.append(f"## Data and licences\n\n{data}\n\n{manifest.licence}")
    made = "\n".join(
        f"- {name}: `{value}`"
        for name, value in manifest.provenance.items()
        if name != "checkpoint"
    )
    parts.append(f"## Training\n\n{made}")
    rows = [
        f"| {place} | `{one['picture']}` | {one['caption']} | {one['person']} |"
        for place, ones in record["worst"].items()
        for one in ones
    ]
    parts.append(
        "## Known failures\n\nIt knows what its training photographs show, and no text, names, "
        "numbers or places. It gets colours, gender\nand counts wrong, and adds props that are not "
        "there. A rare scene becomes the nearest common one.\n\nThe worst captions of the test "
        "lists by CIDEr:\n\n| list | picture | it says | a person says |\n|---|---|---|---|\n"
        + "\n".join(rows)
    )
    return "\n\n".join(parts) + "\n"


def _scores(manifest: Manifest) -> str:
    lines = []
    names = _measured(manifest)
    for data, splits in manifest.metrics.items():
        for split, precisions in splits.items():
            for precision, found in precisions.items():
                cells = [f"{found[name]:.3f}" if name in found else "" for name in names]
                interval = f"{found['CIDEr-low']:.3f} to {found['CIDEr-high']:.3f}"
                place = f"{data}/{split}, {found['images']:.0f}"
                lines.append(f"| {place} | {precision} | {' | '.join(cells)} | {interval} |")
    head = f"| pictures | precision | {' | '.join(names)} | CIDEr, 95 % |"
    rule = "|---" * (len(names) + 3) + "|"
    return (
        "## Scores\n\nBeam search with the bundle's defaults, metrics of `edgecap eval`, bootstrap "
        "intervals over images. float32 is the model\nbefore it was quantised.\n\n"
        + "\n".join([head, rule, *lines])
    )


def _measured(manifest: Manifest) -> list[str]:
    seen = {
        name
        for splits in manifest.metrics.values()
        for precisions in splits.values()
        for found in precisions.values()
        for name in found
    }
    return [name for name in COLUMNS if name in seen]
