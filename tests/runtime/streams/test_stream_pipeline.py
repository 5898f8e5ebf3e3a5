"""The pipeline: newest wins, everything is counted, nothing piles up."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_parts import Collect, accounted

from edgecap.runtime.caption import Caption
from edgecap.runtime.streams import (
    Frame,
    Pipeline,
    StreamOptions,
    open_source,
)
from edgecap.runtime.streams.frames import NewestSlot
from edgecap.runtime.streams.sources.base import Picture

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
ALL = StreamOptions(gate="none")
WAIT = 60.0  # seconds; only a failing test waits so long


def test_every_frame_of_a_file_in_lock_step(
    make_video: Callable[..., Path], captioner: Callable[..., Caption]
) -> None:
    sink = Collect()
    with open_source(make_video(), realtime=False) as source:
        report = Pipeline(source, captioner, sinks=[sink], options=ALL, decoding={"beams": 2}).run()
    assert report.ended == "end of source"
    assert report.received == report.captions == 20
    assert report.undelivered == {"collect": 0}
    assert [event.frame for event in sink.events] == list(range(20))
    assert [event.reason for event in sink.events] == ["first"] + ["always"] * 19
    assert sink.closed == 1
    event = sink.events[10]
    assert event.text.endswith("BGR beams 2")
    assert abs(int(event.text.split()[1]) - 80) <= 3  # the codec loses a little
    assert (event.tokens, event.score, event.confidence, event.sure) == (
        (5, 6, 2),
        -0.5,
        0.75,
        True,
    )
    assert event.pts == pytest.approx(0.4)
    latency = event.latency_ms
    assert (latency.preprocess, latency.encode, latency.decode) == (3.0, 3.0, 4.0)
    assert 0.0 <= latency.capture_age <= latency.total


def test_newest_wins_under_a_slow_captioner(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    """Nine frames come while the first is captioned: one is captioned, eight are stale."""
    captioning, all_came = threading.Event(), threading.Event()

    def pictures() -> Iterator[Picture]:
        yield picture(0)
        assert captioning.wait(WAIT)
        for level in range(1, 10):
            yield picture(level * 20)
        all_came.set()  # reached when the reader asks for more: the ninth lies in the slot

    def slow(image: np.ndarray, **options: Any) -> Caption:
        captioning.set()
        assert all_came.wait(WAIT)
        return captioner(image, **options)

    sink = Collect()
    source = script(pictures(), live=True)
    report = Pipeline(source, slow, sinks=[sink], options=ALL).run()
    assert [event.frame for event in sink.events] == [0, 9]
    assert [event.dropped.since_last for event in sink.events] == [0, 8]
    assert [event.dropped.total for event in sink.events] == [0, 8]
    assert sink.events[-1].dropped.by_reason == {"stale": 8}
    assert report.received == 10 == accounted(report)
    assert report.dropped == {"stale": 8, "stopped": 0}


@settings(deadline=None, max_examples=30)
@given(orders=st.lists(st.sampled_from(["put", "take"]), max_size=40))
def test_the_slot_loses_nothing_uncounted(orders: list[str]) -> None:
    slot = NewestSlot()
    put = taken = 0
    for order in orders:
        if order == "put":
            slot.put(Frame(np.zeros((1, 1, 3), np.uint8), put, 0.0, 0.0, None, "test"))
            put += 1
        elif (frame := slot.take(0.0)) is not None:
            assert frame.index == put - 1  # always the newest
            taken += 1
    assert slot.received == put == taken + slot.stale + slot.waiting


def test_real_time_clip_adds_up(shared: Path, captioner: Callable[..., Caption]) -> None:
    path = shared / "data" / "video_clips" / "street_480x270.mp4"
    with open_source(path) as source:
        report = Pipeline(source, captioner).run()
    assert report.received == 41 == accounted(report)
    assert report.captions >= 1
    assert report.ended == "end of source"


@pytest.mark.parametrize("live", [False, True])
def test_frames_do_not_pile_up(live: bool, script: Any, captioner: Callable[..., Caption]) -> None:
    """Of 3,000 pictures a handful is alive at any time, whatever the captioner's speed."""
    alive: set[int] = set()
    most = 0

    def pictures() -> Iterator[Picture]:
        for index in range(3000):
            image = np.full((16, 16, 3), index % 256, np.uint8)
            alive.add(index)
            weakref.finalize(image, alive.discard, index)
            yield Picture(image)

    def captions(image: np.ndarray, **options: Any) -> Caption:
        nonlocal most
        most = max(most, len(alive))
        return captioner(image, **options)

    report = Pipeline(script(pictures(), live=live), captions, options=ALL).run()
    assert report.received == 3000
    assert most <= 6


def test_unreadable_pictures_are_counted_as_dropped(
    picture_folder: Path, captioner: Callable[..., Caption]
) -> None:
    (picture_folder / "b.PNG").write_bytes(b"\x89PNG broken")
    sink = Collect()
    with open_source(picture_folder) as source:
        report = Pipeline(source, captioner, sinks=[sink]).run()
    assert report.captions == 2
    assert report.dropped["unreadable"] == 1
    assert [event.dropped.since_last for event in sink.events] == [0, 1]


def test_the_real_captioner_on_a_real_clip(shared: Path, tiny_bundle: Path) -> None:
    """Each event says of its frame what the captioner says of that picture by itself."""
    from edgecap.runtime.captioner import Captioner

    clip = shared / "data" / "video_clips" / "street_480x270.mp4"
    captioner = Captioner(tiny_bundle, threads=1)
    with open_source(clip, realtime=False) as source:
        frames = [frame for frame, _ in zip(source, range(5), strict=False)]
    options = StreamOptions(gate="none", max_captions=5)
    with open_source(clip, realtime=False) as source:
        events = list(Pipeline(source, captioner, options=options, decoding={"beams": 2}))
    assert len(events) == 5
    for frame, event in zip(frames, events, strict=True):
        caption = captioner(frame.image, channels="BGR", beams=2)
        assert (event.text, event.tokens) == (caption.text, caption.tokens)
        assert event.score == pytest.approx(caption.score)
        assert event.confidence == pytest.approx(caption.confidence)
        latency = event.latency_ms
        assert latency.total >= latency.preprocess + latency.encode + latency.decode > 0.0
