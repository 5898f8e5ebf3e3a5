"""The pipeline: newest wins, everything is counted, everything is freed."""

from __future__ import annotations

import io
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import OptionsError, SourceError
from edgecap.runtime.streams import (
    Event,
    Frame,
    JsonLines,
    Pipeline,
    SinkGone,
    StreamOptions,
    StreamReport,
    open_source,
)
from edgecap.runtime.streams.frames import NewestSlot
from edgecap.runtime.streams.sources.base import Picture

ALL = StreamOptions(gate="none")
WAIT = 60.0  # seconds; only a failing test waits so long


class Collect:
    """A sink that keeps what it gets."""

    name = "collect"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    def write(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def accounted(report: StreamReport) -> int:
    dropped = report.dropped
    return report.captions + sum(report.skipped.values()) + dropped["stale"] + dropped["stopped"]


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


def test_a_dead_sink_stops_nobody(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    """One sink hangs from the first event on: the camera runs on, the loss is counted."""
    let_go = threading.Event()

    class Dead:
        name = "dead"

        def write(self, event: Event) -> None:
            let_go.wait(WAIT)

        def close(self) -> None:
            pass

    healthy = Collect()
    turns = threading.Semaphore(0)

    def pictures() -> Iterator[Picture]:
        for level in range(200):
            yield picture(level)
            assert turns.acquire(timeout=WAIT)  # the next comes when this one has been captioned

    def captions(image: np.ndarray, **options: Any) -> Caption:
        turns.release()
        return captioner(image, **options)

    options = StreamOptions(gate="none", queue=250, flush_timeout=0.5)
    small = StreamOptions(gate="none", queue=10, flush_timeout=0.2)
    source = script(pictures(), live=True)
    report = Pipeline(source, captions, sinks=[Dead(), healthy], options=options).run()
    assert report.captions == 200 == report.undelivered["dead"]
    assert len(healthy.events) == 200
    let_go.set()

    let_go.clear()
    source = script(pictures(), live=True)
    report = Pipeline(source, captions, sinks=[Dead()], options=small).run()
    assert report.captions == 200 == report.undelivered["dead"]
    let_go.set()
    for thread in threading.enumerate():
        if thread.name == "sink dead":
            thread.join(WAIT)


def test_a_failing_sink_is_counted_and_tried_on(
    script: Any,
    picture: Callable[..., Picture],
    captioner: Callable[..., Caption],
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(Collect):
        name = "odd"

        def write(self, event: Event) -> None:
            if event.frame % 2:
                raise OSError("disk full")
            super().write(event)

    sink = Odd()
    source = script([picture(0)] * 10, live=False)
    report = Pipeline(source, captioner, sinks=[sink], options=ALL).run()
    assert [event.frame for event in sink.events] == [0, 2, 4, 6, 8]
    assert report.undelivered == {"odd": 5}
    assert caplog.text.count("disk full") == 1


def test_lock_step_waits_for_a_slow_sink(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    sink = Collect()
    source = script([picture(0)] * 300, live=False)
    options = StreamOptions(gate="none", queue=1)
    report = Pipeline(source, captioner, sinks=[sink], options=options).run()
    assert [event.frame for event in sink.events] == list(range(300))
    assert report.undelivered == {"collect": 0}


def test_the_stream_ends_when_no_sink_is_left(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    class Leaves(Collect):
        def write(self, event: Event) -> None:
            raise SinkGone

    def endless() -> Iterator[Picture]:
        while True:
            yield picture(0)

    source = script(endless(), live=False)
    report = Pipeline(
        source, captioner, sinks=[Leaves()], options=StreamOptions(gate="none", queue=1)
    ).run()
    assert report.ended == "sinks gone"
    assert report.undelivered["collect"] == report.captions


@pytest.mark.parametrize("live", [False, True])
def test_ends(
    live: bool, script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def endless() -> Iterator[Picture]:
        while True:
            yield picture(0)

    report = Pipeline(
        script(endless(), live=live), captioner, options=StreamOptions(gate="none", max_captions=3)
    ).run()
    assert (report.ended, report.captions) == ("max captions", 3)
    assert report.received == accounted(report)

    report = Pipeline(
        script(endless(), live=live), captioner, options=StreamOptions(gate="none", duration=0.05)
    ).run()
    assert report.ended == "duration"
    assert report.received == accounted(report)

    pipeline = Pipeline(script(endless(), live=live), captioner, options=ALL)
    for event in pipeline:
        if event.frame >= 5:
            pipeline.stop()
    assert pipeline.report is not None
    assert pipeline.report.ended == "stopped"

    pipeline = Pipeline(script(endless(), live=live), captioner, options=ALL)
    events = iter(pipeline)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert pipeline.report is not None
    assert (pipeline.report.ended, pipeline.report.captions) == ("stopped", 1)
    with pytest.raises(OptionsError, match="has run"):
        pipeline.run()


def test_duration_ends_a_camera_that_shows_nothing(
    script: Any, captioner: Callable[..., Caption]
) -> None:
    silent = threading.Event()

    def pictures() -> Iterator[Picture]:
        silent.wait(0.5)
        yield from ()

    report = Pipeline(
        script(pictures(), live=True), captioner, options=StreamOptions(duration=0.01)
    ).run()
    assert (report.ended, report.captions) == ("duration", 0)


@pytest.mark.parametrize("live", [False, True])
def test_errors_of_the_source_come_after_its_frames(
    live: bool, script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def pictures() -> Iterator[Picture]:
        yield picture(7)
        raise SourceError("the camera fell off")

    sink = Collect()
    pipeline = Pipeline(script(pictures(), live=live), captioner, sinks=[sink], options=ALL)
    with pytest.raises(SourceError, match="fell off"):
        pipeline.run()
    assert [event.text for event in sink.events] == ["level 7 BGR beams 4"]
    assert pipeline.report is not None
    assert pipeline.report.ended == "error"


def test_errors_of_the_captioner_free_everything(
    make_video: Callable[..., Path],
) -> None:
    def broken(image: np.ndarray, **options: Any) -> Caption:
        raise RuntimeError("no engine")

    sink = Collect()
    with open_source(make_video()) as source:
        with pytest.raises(RuntimeError, match="no engine"):
            Pipeline(source, broken, sinks=[sink]).run()
        assert source.read() is None
    assert sink.closed == 1


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


def test_json_lines_are_strict(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def nan(image: np.ndarray, **options: Any) -> Caption:
        caption = captioner(image, **options)
        return Caption(
            "ein Bär\n", caption.tokens, float("-inf"), float("nan"), False, caption.timings
        )

    out = io.BytesIO()
    source = script([picture(0), picture(200)], live=False)
    Pipeline(source, nan, sinks=[JsonLines(out)], options=ALL).run()
    lines = out.getvalue().decode().splitlines()
    assert len(lines) == 2
    assert out.getvalue().endswith(b"\n")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    event = json.loads(lines[0], parse_constant=refuse)
    assert list(event) == [
        "source", "frame", "captured_at", "captured_at_unix", "pts", "text", "tokens", "score",
        "confidence", "sure", "reason", "latency_ms", "dropped", "truncated", "draft",
    ]  # fmt: skip
    assert (event["text"], event["score"], event["confidence"]) == ("ein Bär\n", None, None)
    assert event["captured_at"].endswith("Z")
    assert list(event["latency_ms"]) == ["capture_age", "preprocess", "encode", "decode", "total"]


def test_json_lines_survive_short_writes_and_see_closed_pipes(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    class Drip(io.RawIOBase):
        """Takes seven bytes a time, as a full pipe may."""

        def __init__(self) -> None:
            self.taken = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            self.taken += bytes(data[:7])
            return min(7, len(data))

    drip = Drip()
    source = script([picture(0)] * 3, live=False)
    Pipeline(source, captioner, sinks=[JsonLines(drip)], options=ALL).run()  # type: ignore[arg-type]
    assert [json.loads(line)["frame"] for line in drip.taken.splitlines()] == [0, 1, 2]

    class Closed(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    def endless() -> Iterator[Picture]:
        while True:
            yield picture(0)

    source = script(endless(), live=True)
    report = Pipeline(source, captioner, sinks=[JsonLines(Closed())], options=ALL).run()
    assert report.ended == "sinks gone"


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
