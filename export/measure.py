"""Measure a bundle on captioned photographs: scores, and the fit of its confidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecap.runtime.captioner import Captioner
from edgecap.runtime.confidence import caption_features
from edgecap.runtime.confidence import confidence as stated_confidence
from edgecap.runtime.manifest import ConfidenceSpec
from edgecap.training.confidence_fit import (
    Reliability,
    fit_logistic,
    reliability,
)
from edgecap.training.data import CaptionedImage
from edgecap.training.data.base import load_pixels
from edgecap.training.metrics import METRICS, Scores, evaluate
from edgecap.training.no_photographs import no_photographs
from edgecap.training.progress import track

NAMES = ("mean_logprob", "min_logprob", "length", "novelty", "margin")
BATCH = 8
NO_PHOTOGRAPHS = 350


@dataclass(frozen=True)
class Measured:
    """Captions of a set of pictures with the features that confidence is made of."""

    texts: list[str]
    features: list[dict[str, float]]


def caption_all(captioner: Captioner, pictures: Sequence[npt.NDArray[np.uint8]]) -> Measured:
    """Caption uint8 RGB pictures with the bundle's defaults."""
    options = captioner.options()
    texts: list[str] = []
    features: list[dict[str, float]] = []
    for start in track(range(0, len(pictures), BATCH), "captions"):
        encoded = captioner.encode(list(pictures[start : start + BATCH]))
        decoded = captioner.search(encoded, options)
        for index, found in enumerate(decoded.hypotheses):
            novelty = None if encoded.novelty is None else float(encoded.novelty[index])
            texts.append(captioner.tokenizer.decode(found[0].tokens))
            features.append(caption_features(found, novelty))
    return Measured(texts, features)


def score(captioner: Captioner, images: Sequence[CaptionedImage]) -> tuple[Scores, Measured]:
    """Corpus and per-image scores of a bundle on captioned photographs."""
    measured = caption_all(captioner, [load_pixels(image) for image in images])
    candidates = {i.id: text for i, text in zip(images, measured.texts, strict=True)}
    references = {i.id: list(i.captions) for i in images}
    return evaluate(candidates, references, tuple(METRICS), skip_missing=True), measured


def weakest_quarter(images: Sequence[CaptionedImage]) -> float:
    """The CIDEr under which a quarter of people's own captions fall, each image's first one judged
    by its others: what a caption must reach to count as fitting."""
    judged = [image for image in images if len(image.captions) > 1]
    people = evaluate(
        {image.id: image.captions[0] for image in judged},
        {image.id: list(image.captions[1:]) for image in judged},
        metrics=("CIDEr",),
    )
    return float(np.percentile(list(people.per_image["CIDEr"].values()), 25))


@dataclass(frozen=True)
class ConfidenceFit:
    spec: ConfidenceSpec
    on_validation: Reliability


def fit_confidence(
    captioner: Captioner,
    images: Sequence[CaptionedImage],
    scores: Scores,
    measured: Measured,
    *,
    floor: float,
    seed: int,
    fitted_on: str,
) -> ConfidenceFit:
    """Fit P(the caption fits) on a validation set and on pictures that are no photographs.

    A caption fits when its CIDEr reaches that of the weakest quarter of people's own captions.
    No-photographs get the weight of one third of the photographs, whatever their number.
    """
    fits_from = weakest_quarter(images)
    cider = np.array([scores.per_image["CIDEr"][image.id] for image in images])
    others = caption_all(captioner, no_photographs(NO_PHOTOGRAPHS, captioner.image_size, seed))
    rows = [*measured.features, *others.features]
    fits = np.concatenate([cider >= fits_from, np.zeros(len(others.features), bool)])
    weights = np.concatenate(
        [
            np.ones(len(cider)),
            np.full(len(others.features), len(cider) / 3 / len(others.features)),
        ]
    )
    fit = fit_logistic(rows, fits, NAMES, sample_weights=weights)
    spec = ConfidenceSpec(fit.intercept, fit.weights, floor, fitted_on)
    stated = np.array([stated_confidence(row, spec) for row in measured.features])
    nothing = np.array([stated_confidence(row, spec) for row in others.features])
    quality = reliability(stated, fits[: len(cider)])
    return ConfidenceFit(
        ConfidenceSpec(
            fit.intercept,
            fit.weights,
            floor,
            fitted_on,
            {
                "expected_calibration_error": round(quality.expected_error, 4),
                "brier": round(quality.brier, 4),
                "fits_from_cider": round(fits_from, 3),
                "photographs_that_fit": round(float(fits[: len(cider)].mean()), 3),
                "photographs_under_floor": round(float((stated < floor).mean()), 3),
                "no_photographs_under_floor": round(float((nothing < floor).mean()), 3),
            },
        ),
        quality,
    )
