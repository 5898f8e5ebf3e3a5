"""How a pipeline ends: everything is freed and every error comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_parts import Collect, accounted

from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import OptionsError, SourceError
from edgecap.runtime.streams import (
    Pipeline,
    StreamOptions,
    open_source,
)
from edgecap.runtime.streams.sources.base import Picture

pytestmark = pytest.mark.usefixtures("no_thread_is_left")
ALL = StreamOptions(gate="none")


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
