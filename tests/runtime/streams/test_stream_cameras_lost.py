"""Cameras: lost, absent, frozen, late, and what is freed meanwhile. Real ones: test_stream_rtsp."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources import camera
from edgecap.runtime.streams.sources.base import Picture
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, FrozenWatch, Lateness


class Capture:
    """A capture that gives ``frames`` pictures, then is lost."""

    ended = False

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.released = False

    def read(self) -> Picture | None:
        assert not self.released
        if not self.frames:
            return None
        self.frames -= 1
        return Picture(np.zeros((4, 4, 3), np.uint8))

    def release(self) -> None:
        self.released = True


class Flaky(Camera):
    """A camera whose openings are given: a number of frames, or None where opening fails."""

    def __init__(self, openings: list[int | None], **options: Any) -> None:
        self.openings = openings
        self.captures: list[Capture] = []
        super().__init__("flaky", SourceOptions(**options), patience=0.0)

    def _open(self) -> Capture:
        assert all(capture.released for capture in self.captures), "two captures at once"
        frames = self.openings.pop(0) if self.openings else None
        if frames is None:
            raise AbsentError("flaky is not there")
        self.captures.append(Capture(frames))
        return self.captures[-1]


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "LONGEST_DELAY", 0.0)


@pytest.mark.usefixtures("no_delay")
def test_a_lost_camera_is_opened_again() -> None:
    flaky = Flaky([2, None, None, 3, 1], reconnects=3)
    frames = [flaky.read() for _ in range(6)]
    with pytest.raises(SourceError, match="did not come back in 3 attempts"):
        flaky.read()
    assert [frame.index for frame in frames if frame] == list(range(6))
    flaky.close()
    assert all(capture.released for capture in flaky.captures)


@pytest.mark.usefixtures("no_delay")
def test_a_camera_that_opens_but_shows_nothing_is_given_up() -> None:
    flaky = Flaky([1, *[0] * 50], reconnects=4)
    assert flaky.read() is not None
    with pytest.raises(SourceError, match="4 attempts"):
        flaky.read()
    assert len(flaky.captures) == 5


def test_cancel_ends_the_wait_to_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "FIRST_DELAY", 1e6)
    monkeypatch.setattr(camera, "LONGEST_DELAY", 1e6)
    flaky = Flaky([0], reconnects=1)
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(flaky.read()))
    thread.start()
    flaky.cancel()
    thread.join(60.0)
    assert got == [None]
    flaky.close()


def test_the_first_opening_is_tried_once_unless_asked() -> None:
    with pytest.raises(SourceError, match="not there"):
        Flaky([None, 5], reconnects=3)


@pytest.mark.usefixtures("no_delay")
def test_an_absent_camera_is_waited_for() -> None:
    said: list[tuple[str, str]] = []
    flaky = Flaky([None, None, None, 2], reconnects=5, wait=True)
    flaky.listener = lambda kind, text: said.append((kind, text))
    frame = flaky.read()
    assert frame is not None
    assert frame.index == 0
    assert [kind for kind, _ in said] == ["lost", "lost", "lost", "open"]
    assert "is not there; attempt 1 of 5" in said[0][1]
    flaky.close()


@pytest.mark.usefixtures("no_delay")
def test_an_absent_camera_that_never_comes_is_given_up_with_its_reason() -> None:
    flaky = Flaky([], reconnects=2, wait=True)
    with pytest.raises(SourceError, match="flaky is not there; given up after 2 attempts"):
        flaky.read()


@pytest.mark.usefixtures("no_delay")
def test_renewed_at_another_scale() -> None:
    flaky = Flaky([3, 3], reconnects=1)
    assert not flaky.renew(0.5), "no picture has come yet"
    assert flaky.read() is not None
    assert flaky.renew(0.5)
    assert flaky.read() is not None
    assert [capture.released for capture in flaky.captures] == [True, False]
    assert flaky.scaled(1281, 721) == (640, 360)
    flaky.close()


def picture(level: int, pts: float | None = None) -> Picture:
    return Picture(np.full((32, 32, 3), level, np.uint8), pts)


def test_a_frozen_picture_is_noticed_once_until_it_moves() -> None:
    watch = FrozenWatch(10.0)
    seen = [watch.seen(picture(7), float(now)) for now in range(30)]
    assert seen.index(True) == 10
    assert sum(seen) == 1
    assert not watch.seen(picture(8), 30.0)
    assert [watch.seen(picture(8), now) for now in (39.0, 40.0, 41.0)] == [False, True, False]


def test_a_timestamp_that_stands_still_is_noticed() -> None:
    watch = FrozenWatch(5.0)
    seen = [watch.seen(picture(now, 1.0), float(now)) for now in range(8)]
    assert seen == [False] * 5 + [True] + [False] * 2 or seen[5]
    moving = FrozenWatch(5.0)
    assert not any(moving.seen(picture(now, float(now)), float(now)) for now in range(50))


@given(
    delays=st.lists(st.floats(0.0, 0.4), min_size=1, max_size=50),
    start=st.floats(0.0, 1e6),
    skew=st.floats(-2e-4, 2e-4),
)
def test_jitter_and_clock_drift_are_not_late(
    delays: list[float], start: float, skew: float
) -> None:
    lateness = Lateness(0.5)
    for index, delay in enumerate(delays):
        pts = 0.01 + index * 10.0
        now = start + index * 10.0 * (1.0 + skew) + delay
        assert lateness.seen(picture(0, pts), now) is None


def test_a_growing_lag_is_late() -> None:
    lateness = Lateness(0.5)
    lags = [lateness.seen(picture(0, 0.1 * i), 100.0 + 0.11 * i) for i in range(200)]
    first = next(index for index, lag in enumerate(lags) if lag is not None)
    assert 50 <= first <= 55
    assert all(lag is not None for lag in lags[first:])
    lateness.restart()
    assert lateness.seen(picture(0, 0.1), 500.0) is None


@pytest.mark.usefixtures("no_delay")
def test_late_frames_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their own timestamps say that 20 came at once after a pause: the last ones alone are news."""
    moments = iter([*(0.1 * i for i in range(10)), *(10.0 + 1e-3 * i for i in range(91)), 10.1])

    class Clocked(Capture):
        def __init__(self) -> None:
            super().__init__(102)

        def read(self) -> Picture | None:
            taken = super().read()
            if taken is None:
                return None
            index = 101 - self.frames
            return taken._replace(image=taken.image + np.uint8(index), pts=0.1 + 0.1 * index)

    class Late(Camera):
        def _open(self) -> Clocked:
            return Clocked()

    late = Late("late", SourceOptions(latency=0.5), patience=0.0)
    monkeypatch.setattr(camera.time, "monotonic", lambda: next(moments, 11.0))
    levels = []
    for _ in range(16):
        taken = late._next()
        assert taken is not None
        levels.append(int(taken.image[0, 0, 0]))
    assert levels[:10] == list(range(10))
    assert levels[10] >= 90
    assert late.lost["late"] == levels[10] - 10
