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

Pixels = npt.NDArray[np.uint8]


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


def no_photographs(count: int, size: int, seed: int) -> list[Pixels]:
    """Pictures without anything to describe: uint8 [size, size, 3], made from ``seed``."""
    generator = np.random.default_rng(seed)
    makers = (_flat, _noise, _smooth_noise, _text, _gradient, _stripes, _window)
    return [makers[i % len(makers)](generator, size) for i in range(count)]


def _flat(generator: np.random.Generator, size: int) -> Pixels:
    level = generator.choice([0, 0, 255, int(generator.integers(0, 256))])
    colour = generator.integers(0, 256, 3) if generator.random() < 0.4 else np.full(3, level)
    noise = generator.normal(0, generator.choice([0, 2, 6]), (size, size, 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def _noise(generator: np.random.Generator, size: int) -> Pixels:
    if generator.random() < 0.5:
        return generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
    grey = generator.normal(128, generator.uniform(20, 90), (size, size, 1))
    return np.clip(grey.repeat(3, 2), 0, 255).astype(np.uint8)


def _smooth_noise(generator: np.random.Generator, size: int) -> Pixels:
    import cv2

    cells = int(generator.integers(3, 40))
    coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _text(generator: np.random.Generator, size: int) -> Pixels:
    import cv2

    dark = generator.random() < 0.4
    page = np.full((size, size, 3), 20 if dark else 250, np.uint8)
    ink = (230, 230, 230) if dark else (20, 20, 20)
    scale = float(generator.uniform(0.25, 0.6))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz   .,;(){}=0123456789"))
    for y in range(int(10 + 12 * scale), size, int(8 + 24 * scale)):
        if generator.random() < 0.12:
            continue
        line = "".join(generator.choice(letters, int(generator.integers(5, 60))))
        start = int(generator.integers(4, 30))
        cv2.putText(page, line, (start, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return page


def _gradient(generator: np.random.Generator, size: int) -> Pixels:
    ends = generator.integers(0, 256, (2, 3)).astype(np.float64)
    angle = generator.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return np.asarray(ends[0] * (1 - t) + ends[1] * t, np.float64).astype(np.uint8)


def _stripes(generator: np.random.Generator, size: int) -> Pixels:
    width = int(generator.integers(2, 40))
    y, x = np.mgrid[0:size, 0:size] // width
    on = (x + y) % 2 if generator.random() < 0.5 else x % 2
    colours = generator.integers(0, 256, (2, 3), dtype=np.uint8)
    return np.asarray(colours[on], np.uint8)


def _window(generator: np.random.Generator, size: int) -> Pixels:
    """A desktop window: title bar, side panel, lines of text."""
    page = _text(generator, size)
    page[: size // 12] = generator.integers(40, 220, 3)
    page[:, : size // 5] = generator.integers(180, 250, 3)
    return page
