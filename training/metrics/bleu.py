"""BLEU-1 to BLEU-4 (Papineni et al., ACL 2002) as coco-caption computes them.

Counts are summed over the corpus; the effective reference length of an image is that of the
reference nearest to the candidate in length, the shorter on a tie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgecap.training.metrics.base import CaptionSet, MetricResult, Tokens, split_no_break

ORDERS = 4
# coco-caption keeps 0 / 0 and log 0 away with these; they show in scores per image.
_TINY, _SMALL = 1e-15, 1e-9


def bleu_counts(candidate: Tokens, references: Sequence[Tokens]) -> npt.NDArray[np.int64]:
    """Integer counts of one image, int64 [10]: candidate length, reference length, then the
    n-grams of the candidate for n = 1 to 4, then those of them that a reference has, clipped."""
    length = len(candidate)
    nearest = min((abs(len(r) - length), len(r)) for r in references)[1]
    most: Counter[tuple[str, ...]] = Counter()
    for reference in references:
        most |= Counter(_ngrams(reference))
    matched = [0] * ORDERS
    for ngram, count in Counter(_ngrams(candidate)).items():
        matched[len(ngram) - 1] += min(count, most[ngram])
    total = [max(0, length - n) for n in range(ORDERS)]
    return np.array([length, nearest, *total, *matched], np.int64)


def bleu_from_counts(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """BLEU-1 to BLEU-4, float64 [..., 4], of counts (or sums of counts) [..., 10]."""
    length, reference = counts[..., 0:1], counts[..., 1:2]
    total, matched = counts[..., 2 : 2 + ORDERS], counts[..., 2 + ORDERS :]
    logs = np.log((matched + _TINY) / (total + _SMALL))
    scores = np.exp(np.cumsum(logs, axis=-1) / np.arange(1, ORDERS + 1))
    ratio = (length + _TINY) / (reference + _SMALL)
    penalty = np.exp(np.minimum(0.0, 1.0 - 1.0 / ratio))
    return np.asarray(scores * penalty)


def compute(captions: CaptionSet) -> MetricResult:
    """BLEU of a caption set."""
    rows = [
        bleu_counts(split_no_break(candidate), [split_no_break(r) for r in references])
        for candidate, references in zip(
            captions.candidate_tokens, captions.reference_tokens, strict=True
        )
    ]
    counts = np.asarray(rows, np.float64)
    names = tuple(f"BLEU-{n}" for n in range(1, ORDERS + 1))
    return MetricResult(
        names, bleu_from_counts(counts), counts, lambda sums, _: bleu_from_counts(sums)
    )


def _ngrams(tokens: Tokens) -> Iterator[tuple[str, ...]]:
    for n in range(1, ORDERS + 1):
        for start in range(len(tokens) - n + 1):
            yield tuple(tokens[start : start + n])
