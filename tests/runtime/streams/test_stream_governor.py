"""The governor on made-up latencies and temperatures, its clock given by the test."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.streams.governor import (
    ENOUGH,
    HEAT_PAUSE,
    Change,
    Governor,
    Level,
    device_temperature,
    make_levels,
)


def feed(
    governor: Governor, latency: float, seconds: float, start: float, period: float = 0.05
) -> tuple[list[Change], float]:
    changes, now = [], start
    while now < start + seconds:
        change = governor.observe(latency, now)
        if change is not None:
            changes.append(change)
        now += period
    return changes, now


def test_levels_lose_beams_then_pixels_then_rate() -> None:
    levels = make_levels(4)
    assert levels[:4] == (Level(), Level(2), Level(1), Level(1, 0.5))
    assert [level.interval for level in levels[4:]] == [0.1, 0.2, 0.5, 1.0]
    assert make_levels(1)[1] == Level(1, 0.5)
    assert str(levels[-1]) == "beams 1, pictures x 0.5, 1 captions a second at most"


def test_too_slow_goes_down_step_by_step_and_comes_up_again() -> None:
    governor = Governor(make_levels(4), slowest=0.1, hottest=None)
    changes, now = feed(governor, 0.2, 10.0, 0.0)
    assert [change.step for change in changes] == list(range(1, len(make_levels(4))))
    assert all(change.lowered and "99th percentile 0.200 s" in change.why for change in changes)
    changes, _ = feed(governor, 0.01, 200.0, now)
    assert [change.step for change in changes] == list(range(len(make_levels(4)) - 2, -1, -1))
    assert governor.level == Level()
    assert not any(change.lowered for change in changes)


def test_a_few_captions_are_no_reason() -> None:
    governor = Governor(make_levels(4), slowest=0.1, hottest=None)
    assert [governor.observe(9.0, float(i)) for i in range(ENOUGH - 1)] == [None] * (ENOUGH - 1)
    assert governor.observe(9.0, 99.0) is not None


def test_between_the_bounds_nothing_moves() -> None:
    governor = Governor(make_levels(4), slowest=0.1, hottest=None)
    feed(governor, 0.2, 0.96, 0.0)
    before = governor.level
    assert before == Level(2)
    changes, _ = feed(governor, 0.09, 300.0, 10.0)
    assert changes == []


def test_raising_that_proves_wrong_is_tried_less_and_less_often() -> None:
    """At full quality the device is too slow, at a level lower it is fast: no hunting."""
    governor = Governor(make_levels(4), slowest=0.1, hottest=None)
    now, raised = 0.0, []
    while now < 1000.0:
        change = governor.observe(0.2 if governor.level == Level() else 0.01, now)
        if change is not None and not change.lowered:
            raised.append(now)
        now += 0.05
    gaps = [after - before for before, after in itertools.pairwise(raised)]
    assert len(raised) < 9
    assert gaps == sorted(gaps)
    assert gaps[-1] > 4 * gaps[0]


def test_heat_lowers_with_pauses_and_raises_when_it_is_cooler() -> None:
    heat = [90.0]
    governor = Governor(make_levels(2), None, 80.0, lambda: heat[0])
    first = governor.look(0.0)
    assert first is not None
    assert "90 degrees" in first.why
    assert governor.look(HEAT_PAUSE - 0.1) is None
    assert governor.look(HEAT_PAUSE) is not None
    heat[0] = 78.0
    assert [governor.look(float(now)) for now in range(20, 60)] == [None] * 40
    heat[0] = 70.0
    steps = [change.step for now in range(100, 140) if (change := governor.look(float(now)))]
    assert steps == [1, 0]


def test_a_device_that_knows_no_temperature_is_not_governed_by_it() -> None:
    governor = Governor(make_levels(2), None, 80.0, lambda: None)
    assert governor.look(0.0) is None


@settings(deadline=None)
@given(
    latencies=st.lists(st.floats(0.0, 10.0), max_size=300),
    heats=st.lists(st.none() | st.floats(-20.0, 120.0), min_size=1, max_size=50),
)
def test_it_never_leaves_its_levels(latencies: list[float], heats: list[float | None]) -> None:
    levels = make_levels(3)
    turn = iter(range(10**6))
    governor = Governor(levels, 0.5, 80.0, lambda: heats[next(turn) % len(heats)])
    step = 0
    for now, latency in enumerate(latencies):
        change = governor.observe(latency, float(now))
        if change is not None:
            assert change.step == step + (1 if change.lowered else -1)
            step = change.step
        assert governor.level == levels[step]


def test_temperatures_of_the_kernel(tmp_path: Path) -> None:
    assert device_temperature(tmp_path) is None
    for zone, text in enumerate(("41500\n", "63250\n", "broken", "-256000\n")):
        folder = tmp_path / f"thermal_zone{zone}"
        folder.mkdir()
        (folder / "temp").write_text(text)
    assert device_temperature(tmp_path) == pytest.approx(63.25)
