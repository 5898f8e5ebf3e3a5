"""The confidence fit against scikit-learn's kind of optimum and against what it must mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.training.confidence_fit import fit_logistic, reliability
from edgecap.training.no_photographs import no_photographs


def sample(count: int, seed: int) -> tuple[list[dict[str, float]], np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(count, 2)) * [1.0, 5.0]
    p = 1 / (1 + np.exp(-(0.5 + 1.5 * x[:, 0] - 0.2 * x[:, 1])))
    rows = [{"a": float(a), "b": float(b)} for a, b in x]
    return rows, generator.random(count) < p, p


def test_it_finds_the_parameters_that_made_the_data() -> None:
    rows, fits, _ = sample(40_000, 0)
    fit = fit_logistic(rows, fits, ("a", "b"), ridge=0.0)
    assert fit.intercept == pytest.approx(0.5, abs=0.05)
    assert fit.weights["a"] == pytest.approx(1.5, abs=0.06)
    assert fit.weights["b"] == pytest.approx(-0.2, abs=0.02)


def test_it_is_the_optimum_that_torch_finds() -> None:
    torch = pytest.importorskip("torch")
    rows, fits, _ = sample(500, 1)
    fit = fit_logistic(rows, fits, ("a", "b"), ridge=0.0)
    x = torch.tensor([[r["a"], r["b"]] for r in rows], dtype=torch.float64)
    y = torch.tensor(fits, dtype=torch.float64)
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, tolerance_grad=1e-12)

    def loss():
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(
            x @ weights[1:] + weights[0], y
        )
        value.backward()
        return value

    optimizer.step(loss)
    ours = [fit.intercept, fit.weights["a"], fit.weights["b"]]
    np.testing.assert_allclose(ours, weights.detach().numpy(), atol=1e-4)


def test_reliability_of_true_probabilities_is_small_and_of_overconfidence_large() -> None:
    _, fits, p = sample(20_000, 2)
    assert reliability(p, fits).expected_error < 0.02
    assert reliability(np.clip(p * 1.5, 0, 1), fits).expected_error > 0.1
    assert sum(reliability(p, fits, bins=7).count) == 20_000


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(8, 64), st.integers(0, 2**32 - 1))
def test_no_photographs_are_pictures_and_repeatable(count: int, size: int, seed: int) -> None:
    made = no_photographs(count, size, seed)
    again = no_photographs(count, size, seed)
    assert len(made) == count
    for a, b in zip(made, again, strict=True):
        assert a.shape == (size, size, 3)
        assert a.dtype == np.uint8
        assert np.array_equal(a, b)
