"""Calibrated confidence: how probable it is that a sentence fits its picture.

A logistic model (Platt 1999) over a few features of the search and of the picture. Training fits it
on the features that ``caption_features`` gives; the bundle carries the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from edgecap.runtime.errors import BundleError
from edgecap.runtime.manifest import ConfidenceSpec

FEATURES = ("mean_logprob", "min_logprob", "length", "novelty", "margin")
LOWEST_LOGPROB = -20.0  # stands for log(0) so that features stay finite


class ScoredHypothesis(Protocol):
    """What is read of a hypothesis of the search."""

    @property
    def score(self) -> float: ...

    @property
    def logprobs(self) -> Sequence[float]: ...


def caption_features(
    hypotheses: Sequence[ScoredHypothesis], novelty: float | None
) -> dict[str, float]:
    """Features of the best of ``hypotheses`` (best first), always the same names.

    mean_logprob, min_logprob : over the generated tokens, EOS included; nats
    length : generated tokens
    novelty : how far the picture lies from the training photographs; 0 where the model cannot tell
    margin : score of the best less that of the second; 0 without a second
    """
    best = hypotheses[0]
    logprobs = [_clamp(value) for value in best.logprobs] or [LOWEST_LOGPROB]
    margin = 0.0
    if len(hypotheses) > 1 and hypotheses[1].logprobs:  # one without tokens stands for "none"
        margin = best.score - hypotheses[1].score
    return {
        "mean_logprob": sum(logprobs) / len(logprobs),
        "min_logprob": min(logprobs),
        "length": float(len(best.logprobs)),
        "novelty": 0.0 if novelty is None else float(novelty),
        "margin": margin if math.isfinite(margin) else 0.0,
    }


def confidence(features: Mapping[str, float], params: ConfidenceSpec | None) -> float:
    """Probability, 0 to 1, that the sentence fits. NaN in a feature that counts gives 0.

    Without parameters it is exp(mean_logprob), the geometric mean of the token probabilities.
    """
    if params is None:
        mean = features["mean_logprob"]
        return 0.0 if math.isnan(mean) else math.exp(min(mean, 0.0))
    total = params.intercept
    for name, weight in params.weights.items():
        if weight:
            total += weight * features[name]
    if math.isnan(total):
        return 0.0
    total = max(-60.0, min(60.0, total))
    return 1.0 / (1.0 + math.exp(-total))


def is_sure(value: float, params: ConfidenceSpec | None) -> bool:
    """False under the model's floor. A model without parameters has no floor."""
    return params is None or value >= params.floor


def check_params(params: ConfidenceSpec | None) -> None:
    """Refuse parameters for features that this version does not compute."""
    unknown = sorted(set(params.weights) - set(FEATURES)) if params else []
    if unknown:
        raise BundleError(
            f"confidence weighs the feature {unknown[0]!r}; this EdgeCap has "
            f"{', '.join(FEATURES)}: upgrade edgecap"
        )


def _clamp(value: float) -> float:
    value = float(value)
    return LOWEST_LOGPROB if math.isnan(value) else max(value, LOWEST_LOGPROB)
