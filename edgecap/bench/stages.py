"""One measured run of a stream: the real pipeline with a sink that looks at the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

from edgecap.bench.record import STAGES, TOTAL
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.streams import Event, Pipeline, StreamOptions
from edgecap.runtime.streams.event import StreamReport
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
    report: StreamReport | None = None

    def samples(self) -> dict[str, list[float]]:
        """The rows by stage; empty without captions."""
        names = (*STAGES, TOTAL)
        columns = zip(*self.rows, strict=True)
        return dict(zip(names, (list(column) for column in columns), strict=False))


class Arrivals:
    """A sink that notes when each caption is delivered."""

    name = "bench"

    def __init__(self) -> None:
        self.captured: dict[int, float] = {}  # frame -> moment of capture, monotonic
        self.rows: list[tuple[float, ...]] = []
        self.size = (0, 0)

    def prepare(self, frame: Frame) -> Frame:
        """Note a frame's capture before anything looks at it."""
        if not self.captured:
            self.size = frame.image.shape[1], frame.image.shape[0]
        self.captured[frame.index] = frame.monotonic
        return frame

    def write(self, event: Event) -> None:
        """Note the stages of a caption that is in the sink's hands now."""
        total = (time.monotonic() - self.captured.pop(event.frame)) * 1e3
        took = event.latency_ms
        inside = took.capture_age + took.preprocess + took.encode + took.decode
        row = (took.capture_age, took.preprocess, took.encode, took.decode, total - inside, total)
        self.rows.append(tuple(round(value, 4) for value in row))

    def close(self) -> None:
        """Nothing is held."""


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
            for event in self._pipeline:
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
        if self._stopped:
            measured.ended = "stopped"
        elif self._over:
            measured.ended = "duration"
        measured.warm_up = min(count, self._warm_up)
        measured.rows = self._arrivals.rows[self._warm_up :]
        measured.size = self._arrivals.size
        return measured

    def _end(self) -> None:
        self._over = True
        self._pipeline.stop()
