"""What every metric gets and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Tokens = list[str]


@dataclass(frozen=True)
class CaptionSet:
    """N images with one candidate and at least one reference each, raw and tokenised."""

    ids: tuple[str, ...]
    candidates: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    candidate_tokens: tuple[Tokens, ...]
    reference_tokens: tuple[tuple[Tokens, ...], ...]


Reduce = Callable[[npt.NDArray[np.float64], int], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class MetricResult:
    """Scores of one metric family over N images.

    names : the k keys it reports, such as "BLEU-1" to "BLEU-4"
    per_image : float64 [N, k]
    statistics : float64 [N, m], per image, such that sums over images determine the corpus score
    reduce : (sums [..., m] over n images, n) -> corpus scores [..., k]
    """

    names: tuple[str, ...]
    per_image: npt.NDArray[np.float64]
    statistics: npt.NDArray[np.float64]
    reduce: Reduce

    def corpus(self) -> dict[str, float]:
        """The scores of the whole set."""
        values = self.reduce(self.statistics.sum(axis=0), len(self.statistics))
        return {name: float(value) for name, value in zip(self.names, values, strict=True)}


def mean_result(name: str, scores: list[float]) -> MetricResult:
    """A metric whose corpus score is the mean of its scores per image."""
    column = np.asarray(scores, np.float64).reshape(-1, 1)
    return MetricResult((name,), column, column, lambda sums, n: sums / n)


def split_no_break(tokens: Tokens) -> Tokens:
    """Words as BLEU and CIDEr of coco-caption see them: they split no-break spaces, too."""
    return " ".join(tokens).split()
