"""Gates: what passes, when, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams import (
    AlwaysGate,
    FeatureGate,
    Frame,
    StreamOptions,
    ThumbnailGate,
    open_source,
)
from edgecap.runtime.streams.gate import make_gate, thumbnail


def frame(image: np.ndarray, seconds: float) -> Frame:
    return Frame(image, 0, 0.0, 0.0, seconds, "test")


def scene(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


STEPS = st.lists(st.tuples(st.floats(0.0, 5.0), st.integers(0, 2)), min_size=1, max_size=30)
SCENES = [np.full((20, 20, 3), level, np.uint8) for level in (0, 100, 200)]


@settings(deadline=None)
@given(steps=STEPS, min_interval=st.floats(0.0, 3.0), extra=st.floats(0.0, 5.0))
def test_thumbnail_gate_says_what_happened(
    steps: list[tuple[float, int]], min_interval: float, extra: float
) -> None:
    max_age = min_interval + extra
    gate = ThumbnailGate(min_interval=min_interval, max_age=max_age)
    now = 0.0
    last: tuple[float, int] | None = None
    for step, which in steps:
        now += step
        decision = gate.decide(frame(SCENES[which], now))
        if last is None:
            expected = (True, "first")
        elif now - last[0] < min_interval:
            expected = (False, "early")
        elif which != last[1]:
            expected = (True, "changed")
        elif now - last[0] >= max_age:
            expected = (True, "refresh")
        else:
            expected = (False, "unchanged")
        assert (decision.passed, decision.reason) == expected
        if decision.passed:
            last = (now, which)


def test_always_gate() -> None:
    gate = AlwaysGate()
    assert [gate.decide(frame(SCENES[0], 0.0)).reason for _ in range(3)] == [
        "first", "always", "always",
    ]  # fmt: skip
    gate = AlwaysGate(min_interval=1.0)
    reasons = [gate.decide(frame(SCENES[0], t)).reason for t in (0.0, 0.5, 1.0, 1.9, 2.5)]
    assert reasons == ["first", "early", "interval", "early", "interval"]


def test_noise_is_no_change_but_a_small_thing_is() -> None:
    generator = np.random.default_rng(0)
    still = np.full((480, 640, 3), 120, np.uint8)
    gate = ThumbnailGate()
    assert gate.decide(frame(still, 0.0)).reason == "first"
    for second in range(1, 6):
        noisy = (still + generator.normal(0, 8, still.shape)).clip(0, 255).astype(np.uint8)
        assert gate.decide(frame(noisy, second)).reason == "unchanged"
    moved = still.copy()
    moved[100:260, 200:360] = 200  # 8 % of the picture
    assert gate.decide(frame(moved, 6.0)).reason == "changed"


def test_a_change_of_colour_alone_is_a_change() -> None:
    red, green = np.zeros((2, 64, 64, 3), np.uint8)
    red[..., 2], green[..., 1] = 151, 77  # the same grey
    gate = ThumbnailGate()
    gate.decide(frame(red, 0.0))
    assert gate.decide(frame(green, 1.0)).reason == "changed"


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (7, 3), (270, 480), (1080, 1920)])
def test_any_size_makes_a_thumbnail(shape: tuple[int, int]) -> None:
    small = thumbnail(np.full((*shape, 3), 77, np.uint8))
    assert small.shape == (32, 32, 3)
    assert np.all(small == 77)


def test_slow_drift_adds_up() -> None:
    """Compared with the last captioned frame, not with the last seen one."""
    gate = ThumbnailGate()
    passed = [
        gate.decide(frame(np.full((32, 32, 3), level, np.uint8), level)).passed
        for level in range(60)
    ]
    assert [index for index, was in enumerate(passed) if was] == [0, 11, 22, 33, 44, 55]


def at_angle(cosine: float) -> np.ndarray:
    """A unit vector with this cosine to (1, 0)."""
    return np.array([cosine, np.sqrt(1.0 - cosine * cosine)], np.float32)


def test_features_have_the_last_word_with_hysteresis() -> None:
    """Every frame's thumbnail differs; what the encoder sees decides."""
    gate = FeatureGate(same=0.97, changed=0.95)
    steps = [
        (1.0, "first"),
        (0.96, "changed"),  # not the same yet
        (1.0, "same"),
        (0.96, "same"),  # compared with the last captioned frame, and quiet stays quiet
        (0.94, "changed"),
        (0.96, "changed"),
    ]
    angle = 0.0  # of the last captioned frame
    for index, (cosine, expected) in enumerate(steps):
        each = frame(scene(index), float(index))
        decision = gate.decide(each)
        assert decision.passed
        turned = angle + np.arccos(cosine)
        features = np.array([np.cos(turned), np.sin(turned)], np.float32)
        decision, measured = gate.confirm(each, decision, features)
        assert decision.reason == expected, index
        assert decision.passed == (expected != "same")
        if index:
            assert measured == pytest.approx(cosine, abs=1e-6)
        if decision.passed:
            angle = turned


def test_a_scene_that_the_encoder_finds_the_same_still_ages() -> None:
    gate = FeatureGate(max_age=10.0)
    reasons = []
    for second in range(12):
        each = frame(scene(second), float(second))
        decision, _ = gate.confirm(each, gate.decide(each), at_angle(1.0))
        reasons.append(decision.reason)
    assert reasons[:3] == ["first", "same", "same"]
    still = frame(scene(11), 12.0)
    assert gate.decide(still).reason == "refresh"


def test_a_model_with_other_features_starts_anew() -> None:
    gate = FeatureGate()
    for second, features in enumerate((at_angle(1.0), np.array([1.0, 0.0, 0.0], np.float32))):
        each = frame(scene(second), float(second))
        decision, cosine = gate.confirm(each, gate.decide(each), features)
        assert decision.passed
        assert cosine is None


@pytest.mark.parametrize("gate", [ThumbnailGate(min_interval=5.0), AlwaysGate(min_interval=5.0)])
def test_a_timeline_that_jumps_back_stops_nothing(gate: ThumbnailGate | AlwaysGate) -> None:
    assert gate.decide(frame(SCENES[0], 1000.0)).passed
    passed = [gate.decide(frame(SCENES[i % 3], float(i))).passed for i in range(12)]
    assert any(passed)


@pytest.mark.parametrize(
    ("clip", "least", "most"),
    [
        ("classroom_480x270.mp4", 1, 1),  # people sit still
        ("driving_highway_1280x720.mp4", 20, 38),  # 38 frames from a moving car
        ("street_480x270.mp4", 3, 41),
    ],
)
def test_real_clips(shared: Path, clip: str, least: int, most: int) -> None:
    gate = ThumbnailGate()
    with open_source(shared / "data" / "video_clips" / clip, realtime=False) as source:
        passed = sum(gate.decide(each).passed for each in source)
    assert least <= passed <= most


def test_make_gate() -> None:
    assert type(make_gate(StreamOptions(), stills=False)) is ThumbnailGate
    assert type(make_gate(StreamOptions(), stills=False, features=True)) is FeatureGate
    assert type(make_gate(StreamOptions(gate="thumbnail"), False, features=True)) is ThumbnailGate
    assert isinstance(make_gate(StreamOptions(), stills=True), AlwaysGate)
    assert isinstance(make_gate(StreamOptions(gate="none"), stills=False), AlwaysGate)
    assert isinstance(make_gate(StreamOptions(gate="thumbnail"), stills=True), ThumbnailGate)


@pytest.mark.parametrize(
    "options",
    [
        {"gate": "magic"},
        {"threshold": 1.5},
        {"threshold": float("nan")},
        {"min_interval": -1.0},
        {"max_age": 1.0, "min_interval": 2.0},
        {"max_captions": 0},
        {"max_captions": 2.5},
        {"duration": -1.0},
        {"same": 0.9, "changed": 0.95},
        {"near": float("nan")},
        {"deadline": 0.0},
        {"unsure": "shout"},
        {"slowest": -1.0},
        {"hottest": 500.0},
        {"stuck": 0.0},
        {"queue": 0},
        {"flush_timeout": -0.1},
    ],
)
def test_stream_options_are_checked(options: dict[str, object]) -> None:
    with pytest.raises(OptionsError, match=next(iter(options))):
        StreamOptions(**options)  # type: ignore[arg-type]
