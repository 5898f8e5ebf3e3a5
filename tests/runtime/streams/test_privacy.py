"""Privacy zones, and cameras that see nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams import AlwaysGate, Decision, Event, Frame, Pipeline
from edgecap.runtime.streams.privacy import GREY, Blocked, Mask, Zone, mask
from edgecap.runtime.streams.sources.base import Picture

LEFT = Zone(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))


def noise(height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def test_the_zone_is_grey_and_the_rest_untouched() -> None:
    image = noise()
    hidden = mask(image, [LEFT])
    assert (hidden[:, :40] == GREY).all()
    assert np.array_equal(hidden[:, 44:], image[:, 44:])
    assert not (image == GREY).all(axis=2).any() or not np.array_equal(image, hidden)


@given(
    points=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=6),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_corners_are_always_hidden(
    points: list[tuple[float, float]], size: tuple[int, int]
) -> None:
    height, width = size
    hidden = mask(np.zeros((height, width, 3), np.uint8), [Zone(tuple(points))])
    for x, y in points:
        column, row = min(int(x * width), width - 1), min(int(y * height), height - 1)
        assert (hidden[row, column] == GREY).all()


def test_nothing_after_the_source_sees_the_zone(
    script: Any, captioner: Callable[..., Caption]
) -> None:
    seen: list[np.ndarray] = []

    def look(image: np.ndarray, **options: Any) -> Caption:
        seen.append(image)
        return captioner(image, **options)

    class Gate(AlwaysGate):
        def decide(self, frame: Frame) -> Decision:
            seen.append(frame.image)
            return super().decide(frame)

    class Watch:
        name = "watch"

        def see(self, frame: Frame, passed: bool) -> None:
            seen.append(frame.image)

        def write(self, event: Event) -> None:
            pass

        def close(self) -> None:
            pass

    source = script([Picture(noise()) for _ in range(3)], live=False)
    Pipeline(source, look, gate=Gate(), sinks=[Watch()], prepare=Mask([LEFT])).run()
    assert len(seen) == 9
    assert all((image[:, :40] == GREY).all() for image in seen)
    frame = Frame(noise(), 0, 0.0, 0.0, None, "test")
    assert Mask([])(frame) is frame


@pytest.mark.parametrize("points", [(), ((0, 0), (1, 1)), ((0, 0), (1, 1), (1.2, 0))])
def test_bad_zones(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(OptionsError, match="three or more points"):
        Zone(points)


def test_a_covered_camera_is_told_when_it_begins_and_ends() -> None:
    said: list[tuple[str, float]] = []
    now = 0.0
    watch = Blocked(lambda kind, text: said.append((kind, now)), after=1.0)
    dark = np.full((60, 80, 3), 3, np.uint8)
    for index in range(100):
        now = index / 10
        image = dark if 20 <= index < 60 and index != 25 else noise()
        watch.look(Frame(image, index, 0.0, now, None, "test"))
    assert said == [("blocked", 3.6), ("clear", 6.0)]
