"""The score that coco-caption prints as "CIDEr" (Vedantam et al., CVPR 2015).

It is the paper's CIDEr-D and not its CIDEr: TF-IDF vectors of 1- to 4-grams of unstemmed words,
cosine similarity with clipping, a Gaussian penalty on the length difference (sigma 6), the mean
over orders and references, times 10. The plain CIDEr of the paper, which nobody prints, is not
computed. Words may be strings or ids: anything hashable. ``CiderD`` (cider_d.py) gives the same
numbers for token ids, faster.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgecap.runtime.errors import DataError
from edgecap.training.metrics.base import CaptionSet, MetricResult, mean_result, split_no_break

ORDERS = 4
SIGMA = 6.0

Words = Sequence[Hashable]
Ngram: TypeAlias = tuple[Hashable, ...]


@dataclass(frozen=True)
class DocumentFrequency:
    """In how many of ``images`` images some reference has an n-gram."""

    counts: Mapping[Ngram, int]
    images: int

    @classmethod
    def of(cls, references: Iterable[Sequence[Words]]) -> DocumentFrequency:
        """Count over the references of each image."""
        counts: Counter[Ngram] = Counter()
        images = 0
        for captions in references:
            counts.update({ngram for caption in captions for ngram in _ngram_counts(caption)})
            images += 1
        if not images:
            raise DataError("document frequencies need the references of at least one image")
        return cls(dict(counts), images)


@dataclass(frozen=True)
class PreparedReferences:
    """The references of one image as vectors.

    postings : n-gram -> (reference, its weight there, that weight over the reference's norm)
    lengths : bigrams in each reference, which is what CIDEr-D calls a length
    """

    postings: Mapping[Ngram, Sequence[tuple[int, float, float]]]
    lengths: Sequence[int]


class Cider:
    """Scores captions under fixed document frequencies.

    ``prepare`` the references of an image once, then ``score`` as many candidates as you like: a
    candidate looks up its own n-grams only, whatever the references hold.
    """

    def __init__(self, document_frequency: DocumentFrequency) -> None:
        self.document_frequency = document_frequency
        self._log_images = math.log(document_frequency.images)
        self._idf: dict[Ngram, float] = {
            ngram: self._log_images - math.log(max(1, count))
            for ngram, count in document_frequency.counts.items()
        }

    def prepare(self, references: Sequence[Words]) -> PreparedReferences:
        """Vectors of one image's references."""
        if not references:
            raise DataError("an image without references cannot be scored; give at least one")
        postings: dict[Ngram, list[tuple[int, float, float]]] = {}
        for number, reference in enumerate(references):
            weights, norms = self._vector(reference)
            for ngram, weight in weights.items():
                norm = norms[len(ngram) - 1]
                if norm:
                    postings.setdefault(ngram, []).append((number, weight, weight / norm))
        return PreparedReferences(postings, [_length(reference) for reference in references])

    def score(self, candidate: Words, references: PreparedReferences | Sequence[Words]) -> float:
        """CIDEr-D of one candidate, 0 to 10."""
        prepared = (
            references if isinstance(references, PreparedReferences) else self.prepare(references)
        )
        weights, norms = self._vector(candidate)
        length = _length(candidate)
        penalties = [
            math.exp(-((length - other) ** 2) / (2 * SIGMA**2)) for other in prepared.lengths
        ]
        similarity = 0.0
        for ngram, weight in weights.items():
            for number, other, share in prepared.postings.get(ngram, ()):
                # Both norms are positive here: a shared n-gram of weight 0 adds nothing.
                if weight:
                    norm = norms[len(ngram) - 1]
                    similarity += min(weight, other) * share / norm * penalties[number]
        return 10.0 * similarity / (ORDERS * len(prepared.lengths))

    def _vector(self, words: Words) -> tuple[dict[Ngram, float], list[float]]:
        weights: dict[Ngram, float] = {}
        squares = [0.0] * ORDERS
        for ngram, count in _ngram_counts(words).items():
            weight = count * self._idf.get(ngram, self._log_images)
            weights[ngram] = weight
            squares[len(ngram) - 1] += weight * weight
        return weights, [math.sqrt(square) for square in squares]


def compute(captions: CaptionSet) -> MetricResult:
    """CIDEr of a caption set, document frequencies from its own references."""
    references = [[split_no_break(r) for r in refs] for refs in captions.reference_tokens]
    cider = Cider(DocumentFrequency.of(references))
    scores = [
        cider.score(split_no_break(candidate), refs)
        for candidate, refs in zip(captions.candidate_tokens, references, strict=True)
    ]
    return mean_result("CIDEr", scores)


def _ngram_counts(words: Words) -> dict[Ngram, int]:
    counts: dict[Ngram, int] = {}
    words = tuple(words)
    for n in range(1, ORDERS + 1):
        for start in range(len(words) - n + 1):
            ngram = words[start : start + n]
            counts[ngram] = counts.get(ngram, 0) + 1
    return counts


def _length(words: Words) -> int:
    return max(0, len(words) - 1)
