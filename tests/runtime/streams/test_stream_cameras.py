"""Several cameras on one model, and what may be changed while a stream runs."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.caption import Caption, Timings
from edgecap.runtime.errors import OptionsError, SourceError
from edgecap.runtime.streams import (
    Cameras,
    Event,
    Feed,
    Frame,
    Notice,
    Pipeline,
    StreamOptions,
    open_source,
)
from edgecap.runtime.streams.sources.base import Picture

ALL = StreamOptions(gate="none")
WAIT = 60.0  # seconds; only a failing test waits so long


class Hear:
    """A sink that keeps events and notices in their order."""

    name = "hear"

    def __init__(self) -> None:
        self.items: list[Event | Notice] = []

    def write(self, event: Event) -> None:
        self.items.append(event)

    def notice(self, notice: Notice) -> None:
        self.items.append(notice)

    def close(self) -> None:
        pass

    @property
    def notices(self) -> list[str]:
        return [item.kind for item in self.items if isinstance(item, Notice)]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_no_camera_starves(captioner: Callable[..., Caption]) -> None:
    """One camera is twenty times as fast as the others; each gets its share."""
    addresses = ["test://moving?width=64&height=64&fps=1000&frames=100000"]
    addresses += [f"test://{name}?width=64&height=64&fps=50" for name in ("moving", "flashing")]
    sources = [open_source(address) for address in addresses]
    slow = threading.Event()

    def captions(image: np.ndarray, **options: Any) -> Caption:
        slow.wait(0.02)  # slower than every camera
        return captioner(image, **options)

    options = StreamOptions(gate="none", max_captions=60)
    cameras = Cameras([Feed(source) for source in sources], captions, options=options)
    counts = Counter(event.source for event in cameras)
    for source in sources:
        source.close()
    assert sum(counts.values()) == 60
    assert all(abs(count - 20) <= 2 for count in counts.values()), counts
    assert [report.ended for report in cameras.reports] == ["max captions"] * 3
    for report in cameras.reports:
        dropped = report.dropped
        rest = sum(report.skipped.values()) + dropped["stale"] + dropped["stopped"]
        # A frame may have been taken for the round that max_captions ended.
        assert 0 <= report.received - report.captions - rest <= 1


def test_files_are_read_in_turn_and_none_is_lost(
    captioner: Callable[..., Caption], make_video: Callable[..., Any]
) -> None:
    sinks = [Hear(), Hear()]
    sources = [
        open_source(make_video(f"{count}.avi", frames=count), realtime=False) for count in (5, 9)
    ]
    feeds = [Feed(source, [sink]) for source, sink in zip(sources, sinks, strict=True)]
    reports = Cameras(feeds, captioner, options=ALL).run()
    assert [report.captions for report in reports] == [5, 9]
    assert [len(sink.items) for sink in sinks] == [5, 9]
    assert {report.ended for report in reports} == {"end of source"}


def test_a_camera_that_fails_leaves_the_others_running(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def failing() -> Iterator[Picture]:
        yield picture(7)
        raise SourceError("the camera fell off")

    sink = Hear()
    good = script([picture(level) for level in range(6)], live=False)
    bad = script(failing(), live=False)
    cameras = Cameras([Feed(bad, [sink]), Feed(good)], captioner, options=ALL)
    reports = cameras.run()
    assert [report.captions for report in reports] == [1, 6]
    assert sink.notices == ["lost"]

    broken = [script(failing(), live=False) for _ in range(2)]
    cameras = Cameras([Feed(source) for source in broken], captioner, options=ALL)
    with pytest.raises(SourceError, match="fell off"):
        cameras.run()
    assert [report.captions for report in cameras.reports] == [1, 1]
    with pytest.raises(OptionsError, match="no camera"):
        Cameras([], captioner)


def test_the_model_is_exchanged_without_losing_a_frame(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def other(image: np.ndarray, **options: Any) -> Caption:
        return Caption("the other model", (5, 2), -0.1, 0.9, True, Timings())

    sink = Hear()
    source = script([picture(level) for level in range(6)], live=False)
    pipeline = Pipeline(source, captioner, sinks=[sink], options=ALL)
    texts = []
    for event in pipeline:
        texts.append(event.text)
        if event.frame == 2:
            pipeline.exchange(other)
    assert [text == "the other model" for text in texts] == [False] * 3 + [True] * 3
    assert sink.notices == ["model"]
    assert pipeline.report is not None
    assert pipeline.report.received == 6


def test_a_model_that_cannot_do_what_is_asked_is_refused(
    tiny_bundle: Any, script: Any, picture: Callable[..., Picture],
    captioner: Callable[..., Caption],
) -> None:  # fmt: skip
    from edgecap.runtime.captioner import Captioner

    sink = Hear()
    source = script([picture(level) for level in range(4)], live=False)
    pipeline = Pipeline(source, captioner, sinks=[sink], options=ALL, decoding={"beams": 99})
    for event in pipeline:
        if event.frame == 1:
            pipeline.exchange(Captioner(tiny_bundle, threads=1))
    assert sink.notices == ["model"]
    assert pipeline.report is not None
    assert pipeline.report.captions == 4


def test_describe_now_passes_the_gate(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    source = script([picture(9, float(second)) for second in range(10)], live=False)
    pipeline = Pipeline(source, captioner, options=StreamOptions(max_age=4.0))
    reasons = {}
    for event in pipeline:
        reasons[event.frame] = event.reason
        if event.frame == 0:
            pipeline.describe_now()
    assert reasons == {0: "first", 1: "asked", 4: "refresh", 8: "refresh"}


def test_unsure_captions_may_be_left_out(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def doubtful(image: np.ndarray, **options: Any) -> Caption:
        sure = bool(image.mean() > 100)
        return Caption("maybe", (5, 2), -2.0, 0.1 + 0.8 * sure, sure, Timings())

    source = script([picture(level) for level in (0, 200, 10, 250)], live=False)
    options = StreamOptions(gate="none", unsure="silent")
    pipeline = Pipeline(source, doubtful, options=options)
    assert [event.frame for event in pipeline] == [1, 3]
    assert pipeline.report is not None
    assert pipeline.report.skipped == {"unsure": 2}


def test_a_clock_that_jumps_back_is_told_and_changes_nothing_else(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    clock = [1_000_000.0]
    monkeypatch.setattr("edgecap.runtime.streams.sources.base.time.time", lambda: clock[0])
    sink = Hear()
    source = script([picture(level) for level in range(6)], live=False)
    events = []
    for event in Pipeline(source, captioner, sinks=[sink], options=ALL):
        events.append(event)
        if event.frame == 2:
            clock[0] -= 3600.0
    assert [event.frame for event in events] == list(range(6))
    assert all(0.0 <= event.latency_ms.total < 60_000.0 for event in events)
    assert sink.notices == ["clock"]
    notice = next(item for item in sink.items if isinstance(item, Notice))
    assert "set 3600.0 s back" in notice.text
    assert events[3].captured_at < events[2].captured_at


def test_frames_may_be_prepared_and_events_changed_or_kept_back(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    def masked(frame: Frame) -> Frame:
        image = frame.image.copy()
        image[:] = 0
        return Frame(image, frame.index, frame.captured_at, frame.monotonic, None, frame.source)

    sink = Hear()
    source = script([picture(200) for _ in range(4)], live=False)
    pipeline = Pipeline(
        source, captioner, sinks=[sink], options=ALL, prepare=masked,
        tell=lambda event: event if event.frame % 2 else None,
    )  # fmt: skip
    assert [(event.frame, event.text.split()[1]) for event in pipeline] == [(1, "0"), (3, "0")]
    assert len(sink.items) == 2


def test_an_overloaded_stream_loses_beams_and_says_so(
    script: Any, picture: Callable[..., Picture]
) -> None:
    asked = []

    def slow(image: np.ndarray, *, channels: str, beams: int) -> Caption:
        asked.append(beams)
        threading.Event().wait(0.003)
        return Caption("slow", (5, 2), -0.5, 0.9, True, Timings())

    sink = Hear()
    source = script([picture(level % 200) for level in range(70)], live=False)
    options = StreamOptions(gate="none", slowest=0.001)
    Pipeline(source, slow, sinks=[sink], options=options, decoding={"beams": 4}).run()
    assert asked[0] == 4
    assert asked[-1] == 1
    assert asked == sorted(asked, reverse=True)
    assert set(sink.notices) == {"governor"}
    first = next(item for item in sink.items if isinstance(item, Notice))
    assert "quality is lowered to beams 2 (99th percentile" in first.text
    assert first.to_dict()["details"] == {"step": 1, "lowered": True}
