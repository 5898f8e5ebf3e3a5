"""Sinks of a pipeline: dead, failing and slow ones, and none left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from stream_parts import Collect

from edgecap.runtime.caption import Caption
from edgecap.runtime.streams import (
    Event,
    Pipeline,
    SinkGone,
    StreamOptions,
)
from edgecap.runtime.streams.sources.base import Picture

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
ALL = StreamOptions(gate="none")
WAIT = 60.0  # seconds; only a failing test waits so long


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


def test_a_sink_may_have_a_queue_of_its_own(
    script: Any, picture: Callable[..., Picture], captioner: Callable[..., Caption]
) -> None:
    let_go = threading.Event()

    class Held(Collect):
        queue = 3

        def write(self, event: Event) -> None:
            assert let_go.wait(WAIT)
            super().write(event)

    held = Held()
    pipeline = Pipeline(
        script((picture(level) for level in range(20)), live=False), captioner, sinks=[held],
        options=ALL,
    )  # fmt: skip
    events = iter(pipeline)
    seen = [next(events) for _ in range(4)]  # one in the sink's hands, three that wait
    threading.Timer(0.2, let_go.set).start()  # the fifth waits for room
    seen += list(events)
    assert [event.frame for event in held.events] == [event.frame for event in seen]
    assert len(seen) == 20
