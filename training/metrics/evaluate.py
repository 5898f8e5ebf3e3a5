"""Scores of a set of captions, and how sure one can be of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgecap.runtime.errors import DataError
from edgecap.training.metrics.base import CaptionSet, MetricResult, Tokens
from edgecap.training.metrics.ptb import tokenize

# Metric -> the module whose compute(CaptionSet) gives a MetricResult; imported when asked for.
METRICS = {
    "BLEU": "edgecap.training.metrics.bleu",
    "ROUGE-L": "edgecap.training.metrics.rouge_l",
    "CIDEr": "edgecap.training.metrics.cider",
}


@dataclass(frozen=True)
class Scores:
    """corpus : name -> score of the set: "BLEU-1" to "BLEU-4" and "ROUGE-L" from 0 to 1, "CIDEr"
    from 0 to 10. per_image : name -> image id -> score."""

    ids: tuple[str, ...]
    corpus: dict[str, float]
    per_image: dict[str, dict[str, float]]
    results: tuple[MetricResult, ...] = field(repr=False)


@dataclass(frozen=True)
class Interval:
    """Bounds of a bootstrap interval."""

    low: float
    high: float


def evaluate(
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] = tuple(METRICS),
    tokenizer: Callable[[str], Tokens] = tokenize,
) -> Scores:
    """Score one caption per image against its references, as coco-caption does.

    candidates : image id -> caption
    references : image id -> captions by people; the same ids, at least one caption each. CIDEr
        takes its document frequencies from them, so scores of different sets do not compare.
    metrics : keys of ``METRICS``
    tokenizer : caption -> tokens; the default is that of coco-caption

    Raises DataError on unknown metrics, no images, ids that differ, or an image without
    references.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise DataError(f"unknown metric {unknown[0]!r}; give some of {', '.join(METRICS)}")
    captions = _caption_set(candidates, references, tokenizer)
    results = tuple(importlib.import_module(METRICS[name]).compute(captions) for name in metrics)
    corpus: dict[str, float] = {}
    per_image: dict[str, dict[str, float]] = {}
    for result in results:
        corpus |= result.corpus()
        for column, name in enumerate(result.names):
            values = result.per_image[:, column].tolist()
            per_image[name] = dict(zip(captions.ids, values, strict=True))
    return Scores(captions.ids, corpus, per_image, results)


def bootstrap(
    scores: Scores, samples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Percentile bootstrap intervals (Efron, 1979; for BLEU: Koehn, EMNLP 2004) over images.

    Images are drawn with replacement; CIDEr keeps the document frequencies of the whole set.
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
