"""Percentiles, spread, drift and bootstrap intervals, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.bench.statistics import (
    MOST_SPREAD,
    P90_NEEDS,
    P99_NEEDS,
    ratio_of_medians,
    restless,
    summarize,
)
from edgecap.bench.usage import Usage

TIMES = st.lists(st.floats(0.001, 1e5), min_size=1, max_size=300)


@settings(deadline=None)
@given(TIMES)
def test_a_summary_tells_percentiles_only_of_enough_samples(times: list[float]) -> None:
    found = summarize(times)
    assert found.count == len(times)
    assert found.p50 == pytest.approx(np.median(times), abs=1e-4)
    assert found.max == pytest.approx(max(times), abs=1e-4)
    assert (found.p90 is None) == (len(times) < P90_NEEDS)
    assert (found.p99 is None) == (len(times) < P99_NEEDS)
    if found.p99 is not None:
        assert found.p99 == pytest.approx(np.percentile(times, 99), abs=1e-4)
        assert found.p90 is not None
        assert found.p50 <= found.p90 <= found.p99 <= found.max + 1e-4
    assert found.spread >= 0


def test_spread_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    times = np.random.default_rng(1).gamma(9, 2, 500)
    assert summarize(times).spread == pytest.approx(stats.iqr(times) / np.median(times), abs=1e-4)


def test_drift_is_of_the_second_half() -> None:
    assert summarize([10.0] * 50 + [12.0] * 50).drift == pytest.approx(0.2)
    assert summarize([10.0]).drift == 0


@pytest.mark.parametrize("times", [[], [float("nan")], [1.0, float("inf")]])
def test_what_is_no_list_of_times_is_refused(times: list[float]) -> None:
    with pytest.raises(ValueError):
        summarize(times)


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says() -> None:
    # Slow and fast moods of some seconds, as a shared machine has them: single draws of samples
    # would give intervals that are several times too narrow.
    rng = np.random.default_rng(5)
    inside = 0
    for trial in range(40):
        lists = []
        for scale in (1.3, 1.0):
            moods = np.repeat(rng.normal(1, 0.05, 60), 20)
            lists.append(50 * scale * moods * rng.normal(1, 0.02, len(moods)))
        found = ratio_of_medians(*lists, seed=trial)
        assert found is not None
        assert found.low <= found.value <= found.high
        inside += found.low <= 1.3 <= found.high
    assert inside >= 33  # 38 are meant; a bootstrap of short lists is a little too sure


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.integers(P90_NEEDS, 400))
def test_scaling_a_list_scales_its_ratio(factor: float, count: int) -> None:
    times = np.random.default_rng(count).gamma(20, 1, count) + 1
    found = ratio_of_medians(times * factor, times)
    assert found is not None
    assert found.value == pytest.approx(factor)
    swapped = ratio_of_medians(times, times * factor)
    assert swapped is not None
    assert swapped.value == pytest.approx(1 / factor)


def test_no_interval_of_few_samples_or_of_no_time() -> None:
    enough = np.full(50, 2.0)
    assert ratio_of_medians(enough[: P90_NEEDS - 1], enough) is None
    assert ratio_of_medians(enough, np.zeros(50)) is None


def test_a_restless_machine_is_told_by_its_encoder_and_its_neighbours() -> None:
    quiet = summarize(np.linspace(9.9, 10.1, 200))
    wild = summarize(np.tile([5.0, 10.0, 15.0], 50))
    assert wild.spread > MOST_SPREAD
    rising = summarize(np.linspace(10, 12, 200))
    usage = Usage(cpu_percent=190, others_percent=3, peak_rss_mb=100)
    busy = Usage(cpu_percent=100, others_percent=90, peak_rss_mb=100)
    assert restless({"encode": quiet, "total": wild}, usage) == []
    assert "spreads by 100%" in restless({"encode": wild}, usage)[0]
    assert "drifted by" in restless({"encode": rising}, None)[0]
    assert "other programs took 90 %" in restless({"encode": quiet}, busy)[0]
    assert restless({}, None) == []
