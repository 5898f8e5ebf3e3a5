"""Calibrated confidence and the features under it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.confidence import (
    FEATURES,
    LOWEST_LOGPROB,
    caption_features,
    check_params,
    confidence,
    is_sure,
)
from edgecap.runtime.decoding.search import NOTHING, Hypothesis
from edgecap.runtime.errors import BundleError
from edgecap.runtime.manifest import ConfidenceSpec

BEST = Hypothesis((5, 6, 2), -0.5, (-0.3, -0.9, -0.3))
SECOND = Hypothesis((5, 2), -0.8, (-0.8, -0.8))


def spec(floor: float = 0.5, intercept: float = 0.0, **weights: float) -> ConfidenceSpec:
    return ConfidenceSpec(intercept=intercept, weights=weights, floor=floor)


def test_features() -> None:
    features = caption_features([BEST, SECOND], 1.5)
    assert tuple(features) == FEATURES
    assert features == pytest.approx(
        {
            "mean_logprob": -0.5,
            "min_logprob": -0.9,
            "length": 3,
            "novelty": 1.5,
            "margin": 0.3,
        }
    )


def test_features_that_a_model_or_search_does_not_have() -> None:
    alone = caption_features([BEST], None)
    assert alone["novelty"] == 0
    assert alone["margin"] == 0
    assert caption_features([BEST, Hypothesis((), NOTHING, ())], None)["margin"] == 0
    empty = caption_features([Hypothesis((), NOTHING, ())], None)
    assert empty["mean_logprob"] == empty["min_logprob"] == LOWEST_LOGPROB


def test_logistic() -> None:
    features = caption_features([BEST, SECOND], 1.5)
    params = spec(intercept=1.0, mean_logprob=2.0, margin=-4.0)
    assert confidence(features, params) == pytest.approx(1 / (1 + math.exp(-(1 - 1 - 1.2))))


def test_without_parameters_it_is_the_mean_token_probability() -> None:
    features = caption_features([BEST], None)
    assert confidence(features, None) == pytest.approx(math.exp(-0.5))
    assert is_sure(0.0001, None)


def test_floor() -> None:
    assert is_sure(0.5, spec(floor=0.5))
    assert not is_sure(0.4999, spec(floor=0.5))


@given(
    st.lists(st.floats(), max_size=5),
    st.floats(),
    st.floats(),
    st.none() | st.floats(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.fixed_dictionaries({n: st.floats(allow_nan=False, allow_infinity=False) for n in FEATURES}),
)
def test_always_a_probability(
    logprobs: list[float],
    best: float,
    second: float,
    novelty: float | None,
    intercept: float,
    weights: dict[str, float],
) -> None:
    found = [Hypothesis((5,), best, tuple(logprobs)), Hypothesis((6,), second, (-1.0,))]
    features = caption_features(found, novelty)
    for params in (None, spec(intercept=intercept, **weights)):
        value = confidence(features, params)
        assert 0.0 <= value <= 1.0


def test_nan_is_no_confidence() -> None:
    features = caption_features([BEST], math.nan)
    assert confidence(features, spec(intercept=50.0, novelty=-1.0)) == 0
    assert confidence(features, spec(intercept=50.0, novelty=0.0)) > 0.99  # it does not count


def test_unknown_features_are_told_at_load() -> None:
    check_params(None)
    check_params(spec(**dict.fromkeys(FEATURES, 1.0)))
    with pytest.raises(BundleError, match=r"weighs the feature 'mood'; .* upgrade edgecap"):
        check_params(spec(mood=1.0))
