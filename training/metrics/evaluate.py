"""Scores of a set of captions, and how sure one can be of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics.base import CaptionSet, MetricResult, Tokens
from edgecap.training.metrics.ptb import tokenize

# Metric -> the module whose compute(CaptionSet) gives a MetricResult; imported when asked for.
METRICS = {
    "BLEU": "edgecap.training.metrics.bleu",
    "METEOR": "edgecap.training.metrics.meteor",
    "ROUGE-L": "edgecap.training.metrics.rouge_l",
    "CIDEr": "edgecap.training.metrics.cider",
    "CIDEr-D": "edgecap.training.metrics.cider_d",
    "SPICE": "edgecap.training.metrics.spice",
}
# Those that need nothing but the base install and take no time to load.
QUICK = ("BLEU", "ROUGE-L", "CIDEr")


@dataclass(frozen=True)
class Scores:
    """corpus : name -> score of the set: "CIDEr" and "CIDEr-D" from 0 to 10, all others ("BLEU-1"
    to "BLEU-4", "METEOR", "ROUGE-L", "SPICE") from 0 to 1. per_image : name -> image id -> score.
    left_out : metric -> why it was not computed."""

    ids: tuple[str, ...]
    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]
    results: tuple[MetricResult, ...] = field(repr=False)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """Bounds of a bootstrap interval."""

    low: float
    high: float


def evaluate(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = QUICK,
    tokenizer: Callable[[str], Tokens] = tokenize,
    skip_missing: bool = False,
) -> Scores:
    """Score one caption per image against its references, as coco-caption does.

    candidates : image id -> caption
    references : image id -> captions by people; the same ids, at least one caption each. CIDEr
        takes its document frequencies from them, so scores of different sets do not compare.
    metrics : keys of ``METRICS``
    tokenizer : caption -> tokens; the default is that of coco-caption
    skip_missing : leave a metric out, and say so in ``left_out``, where its files are not installed

    Raises DataError on unknown metrics, no images, ids that differ, or an image without
    references; MissingExtraError where the files of a metric are not installed.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise DataError(f"unknown metric {unknown[0]!r}; give some of {', '.join(METRICS)}")
    captions = _caption_set(candidates, references, tokenizer)
    results: list[MetricResult] = []
    left_out: dict[str, str] = {}
    for name in dict.fromkeys(metrics):
        try:
            results.append(importlib.import_module(METRICS[name]).compute(captions))
        except MissingExtraError as error:
            if not skip_missing:
                raise
            left_out[name] = str(error)
    corpus: dict[str, float] = {}
    per_image: dict[str, dict[str, float]] = {}
    for result in results:
        corpus |= result.corpus()
        for column, name in enumerate(result.names):
            values = result.per_image[:, column].tolist()
            per_image[name] = dict(zip(captions.ids, values, strict=True))
    return Scores(captions.ids, corpus, per_image, tuple(results), left_out)


def bootstrap(
    scores: Scores, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Percentile bootstrap intervals (Efron, 1979; for BLEU: Koehn, EMNLP 2004) over images.

    Images are drawn with replacement; BLEU and METEOR are computed anew from the statistics of the
    images drawn, CIDEr and CIDEr-D keep the document frequencies of the whole set.
    Equal arguments give equal intervals.
    """
    if samples < 1 or not 0 < confidence < 1:
        raise DataError(
            f"bootstrap with samples {samples!r} and confidence {confidence!r}; give at least 1 "
            "sample and a confidence between 0 and 1"
        )
    n = len(scores.ids)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=samples)
    tail = 100 * (1 - confidence) / 2
    intervals: dict[str, Interval] = {}
    for result in scores.results:
        values = result.reduce(draws @ result.statistics, n)
        low, high = np.percentile(values, [tail, 100 - tail], axis=0)
        for column, name in enumerate(result.names):
            intervals[name] = Interval(float(low[column]), float(high[column]))
    return intervals


def _caption_set(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    tokenizer: Callable[[str], Tokens],
) -> CaptionSet:
    if not candidates:
        raise DataError("no captions to score; give at least one image")
    lonely = [key for key in candidates if not references.get(key)]
    if lonely:
        raise DataError(
            f"{len(lonely)} of {len(candidates)} images have no reference captions, such as "
            f"{lonely[0]!r}; give at least one for each"
        )
    missing = [key for key in references if key not in candidates]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(references)} images with references have no caption, such as "
            f"{missing[0]!r}; caption them or leave their references out"
        )
    ids = tuple(candidates)
    return CaptionSet(
        ids,
        tuple(candidates[key] for key in ids),
        tuple(tuple(references[key]) for key in ids),
        tuple(tokenizer(candidates[key]) for key in ids),
        tuple(tuple(tokenizer(text) for text in references[key]) for key in ids),
    )
