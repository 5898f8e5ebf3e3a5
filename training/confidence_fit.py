"""Fit of the calibrated confidence: the probability that a caption fits its picture.

Logistic regression (Platt 1999) from what the search knows about a caption to whether people's
captions agree with it. Positives and negatives come from the validation split; pictures that are
no photographs (flat colours, noise, rendered text, gradients) are negatives whatever is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class LogisticFit:
    """``sigmoid(intercept + sum(weights[name] * features[name]))``."""

    intercept: float
    weights: dict[str, float]


def fit_logistic(
    rows: Sequence[dict[str, float]],
    fits: npt.NDArray[np.bool_],
    names: Sequence[str],
    *,
    ridge: float = 1e-2,
    sample_weights: npt.NDArray[np.float64] | None = None,
) -> LogisticFit:
    """Newton's method on the ridge-penalised log-likelihood of standardised features."""
    x = np.array([[row[name] for name in names] for row in rows], np.float64)
    mean, spread = x.mean(0), x.std(0) + 1e-9
    design = np.concatenate([np.ones((len(x), 1)), (x - mean) / spread], 1)
    weight = np.ones(len(x)) if sample_weights is None else sample_weights
    target = fits.astype(np.float64)
    beta = np.zeros(design.shape[1])
    penalty = np.full(design.shape[1], ridge * weight.sum())
    penalty[0] = 0.0
    for _ in range(50):
        p = 1 / (1 + np.exp(-design @ beta))
        gradient = design.T @ (weight * (p - target)) + penalty * beta
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        beta -= step
        if np.abs(step).max() < 1e-9:
            break
    scaled = beta[1:] / spread
    return LogisticFit(
        float(beta[0] - scaled @ mean), dict(zip(names, map(float, scaled), strict=True))
    )


@dataclass(frozen=True)
class Reliability:
    """Equal-count bins: mean confidence, share that fits, count; and the expected error."""

    confidence: list[float]
    fits: list[float]
    count: list[int]
    expected_error: float  # ECE (Naeini et al. 2015)
    brier: float


def reliability(
    confidence: npt.NDArray[np.float64], fits: npt.NDArray[np.bool_], bins: int = 10
) -> Reliability:
    """How far stated confidence is from the share of captions that fit."""
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    means = [float(confidence[p].mean()) for p in parts]
    shares = [float(fits[p].mean()) for p in parts]
    counts = [len(p) for p in parts]
    error = sum(n * abs(m - s) for n, m, s in zip(counts, means, shares, strict=True))
    return Reliability(
        means,
        shares,
        counts,
        error / len(confidence),
        float(np.mean((confidence - fits) ** 2)),
    )
