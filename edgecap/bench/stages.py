"""One measured run of a stream: the real pipeline with a sink that looks at the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from edgecap.bench.record import STAGES, TOTAL
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams import Event, Pipeline, StreamOptions
from edgecap.runtime.streams.event import Latency, StreamReport
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sources.base import Source

NO_DRAFTS = 2.0  # a cosine that nothing reaches: every caption is decoded


@dataclass
class Measured:
    """What came of a run.

    rows : for each caption after the warm-up, milliseconds of ``STAGES`` and of ``TOTAL``
    first_ms : the first caption's preprocessing, encoding and decoding; None where none came
    size : width and height of the first frame
    seconds : of the measured part
    """

    rows: list[tuple[float, ...]] = field(default_factory=list)
    first_ms: float | None = None
    warm_up: int = 0
    size: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    ended: str = "end of source"
    problem: str = ""  # what a lost source said
    report: StreamReport | None = None

    def samples(self) -> dict[str, list[float]]:
        """The rows by stage; empty without captions."""
        names = (*STAGES, TOTAL)
        columns = zip(*self.rows, strict=True)
        return dict(zip(names, (list(column) for column in columns), strict=False))


class Arrivals:
    """A sink that notes when each caption is delivered, and does nothing else meanwhile."""

    name = "bench"

    def __init__(self) -> None:
        self._captured: dict[int, float] = {}  # frame -> moment of capture, monotonic
        self._notes: list[tuple[int, Latency, float]] = []  # frame, stages, moment of delivery
        self.size: tuple[int, int] | None = None

    def prepare(self, frame: Frame) -> Frame:
        """Note a frame's capture before anything looks at it."""
        if self.size is None:
            self.size = frame.image.shape[1], frame.image.shape[0]
        self._captured[frame.index] = frame.monotonic
        return frame

    def write(self, event: Event) -> None:
        """Note a caption that is in the sink's hands now."""
        self._notes.append((event.frame, event.latency_ms, time.monotonic()))

    def close(self) -> None:
        """Nothing is held."""

    def rows(self) -> list[tuple[float, ...]]:
        """Milliseconds of ``STAGES`` and of ``TOTAL`` of each caption, in their order."""
        found = []
        for frame, took, delivered in self._notes:
            total = (delivered - self._captured[frame]) * 1e3
            stages = (took.capture_age, took.preprocess, took.encode, took.decode)
            row = (*stages, total - sum(stages), total)
            found.append(tuple(round(value, 4) for value in row))
        return found


class Stages:
    """Captions a source and keeps the time of each stage.

    watched : entered when the warm-up is over and left when the measured part ends
    seen : called after each caption with (captions of the measured part, its seconds so far)
    """

    def __init__(
        self,
        source: Source,
        captioner: Captioner,
        *,
        beams: int | None,
        duration: float,
        captions: int | None,
        warm_up: int,
        watched: list[AbstractContextManager[object]],
        seen: Callable[[int, float], None],
    ) -> None:
        self._arrivals = Arrivals()
        self._duration, self._captions, self._warm_up = duration, captions, warm_up
        self._watched, self._seen = watched, seen
        self._over = False  # the duration is
        self._stopped = False
        self._pipeline = Pipeline(
            source,
            captioner,
            sinks=[self._arrivals],
            options=StreamOptions(gate="none", near=NO_DRAFTS),
            decoding={"beams": beams},
            prepare=self._arrivals.prepare,
        )

    def stop(self) -> None:
        """End after the caption in the making. Safe in signal handlers and threads."""
        self._stopped = True
        self._pipeline.stop()

    def run(self) -> Measured:
        """Measure until the end."""
        measured = Measured()
        begun: float | None = None
        timer = threading.Timer(self._duration, self._end)  # a camera may give no frame at all
        timer.daemon = True
        count = 0
        with ExitStack() as watching:
            for event in self._events(measured):
                count += 1
                if count == 1:
                    took = event.latency_ms
                    measured.first_ms = took.preprocess + took.encode + took.decode
                if begun is not None:
                    measured.seconds = time.monotonic() - begun
                    self._seen(count - self._warm_up, measured.seconds)
                    if count - self._warm_up == self._captions:
                        measured.ended = "max captions"
                        self._pipeline.stop()
                elif count == self._warm_up and not self._stopped:
                    for each in self._watched:
                        watching.enter_context(each)
                    begun = time.monotonic()
                    timer.start()
            timer.cancel()
        measured.report = self._pipeline.report
        if measured.problem:
            measured.ended = "source lost"
        elif self._stopped:
            measured.ended = "stopped"
        elif self._over:
            measured.ended = "duration"
        measured.warm_up = min(count, self._warm_up)
        measured.rows = self._arrivals.rows()[self._warm_up :]
        measured.size = self._arrivals.size or (0, 0)
        return measured

    def _events(self, measured: Measured) -> Iterator[Event]:
        """The captions; a camera that is lost for good ends them, and what came is kept."""
        try:
            yield from self._pipeline
        except SourceError as error:
            if not self._arrivals.rows():
                raise
            measured.problem = str(error)

    def _end(self) -> None:
        self._over = True
        self._pipeline.stop()
