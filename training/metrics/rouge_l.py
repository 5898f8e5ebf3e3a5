"""ROUGE-L (Lin, 2004) as coco-caption computes it: the F-score of the longest common subsequence,
from the best precision and the best recall over the references, with beta 1.2."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.training.metrics.base import CaptionSet, MetricResult, Tokens, mean_result

BETA = 1.2


def rouge_l(candidate: Tokens, references: Sequence[Tokens]) -> float:
    """ROUGE-L of one image, 0 to 1."""
    # coco-caption counts an empty caption as one empty word.
    candidate = candidate or [""]
    lists = [reference or [""] for reference in references]
    common = [_common_length(candidate, reference) for reference in lists]
    precision = max(common) / len(candidate)
    recall = max(c / len(reference) for c, reference in zip(common, lists, strict=True))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def compute(captions: CaptionSet) -> MetricResult:
    """ROUGE-L of a caption set."""
    pairs = zip(captions.candidate_tokens, captions.reference_tokens, strict=True)
    return mean_result("ROUGE-L", [rouge_l(candidate, refs) for candidate, refs in pairs])


def _common_length(a: Tokens, b: Tokens) -> int:
    row = [0] * (len(b) + 1)
    for word in a:
        diagonal = 0
        for j, other in enumerate(b, start=1):
            above = row[j]
            row[j] = diagonal + 1 if word == other else max(above, row[j - 1])
            diagonal = above
    return row[-1]
