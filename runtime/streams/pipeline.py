"""source -> newest-frame slot -> gate -> captioner -> sinks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.event import Dropped, Event, Latency, StreamReport
from edgecap.runtime.streams.frames import Frame, NewestSlot
from edgecap.runtime.streams.gate import Decision, Gate, make_gate
from edgecap.runtime.streams.options import StreamOptions
from edgecap.runtime.streams.sinks.base import Outlet, Sink
from edgecap.runtime.streams.sources.base import Source

POLL = 0.2  # seconds between looks at the stop flag while no frame comes


class Pipeline:
    """Captions a source until it ends; runs once.

    A live source is read by a thread of its own into a slot that keeps the newest frame only. A
    source that is not live is read frame by frame by the captioning thread and loses none. Gate
    and captioner run in the thread that iterates (or calls ``run``), each sink in its own.

    >>> with open_source("clip.mp4") as source:
    ...     for event in Pipeline(source, edgecap.load()):
    ...         print(event.text)

    Parameters
    ----------
    source : an open source; it is cancelled at the end and closed by who opened it
    captioner : called with (image uint8 [H, W, 3], channels="BGR", **decoding), gives a ``Caption``
    gate : what decides which frames are captioned; None for the one that ``options`` name
    sinks : where events go beside the iterator
    decoding : keyword options for the captioner, such as ``beams``

    Errors of the source (SourceError) and of the captioner end the stream and are raised when
    everything has been freed. ``report`` then holds the numbers of the run.
    """

    def __init__(
        self,
        source: Source,
        captioner: Any,
        *,
        gate: Gate | None = None,
        sinks: Sequence[Sink] = (),
        options: StreamOptions | None = None,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        self.report: StreamReport | None = None
        self._source = source
        self._captioner = captioner
        self._options = options if options is not None else StreamOptions()
        self._gate = gate if gate is not None else make_gate(self._options, source.stills)
        self._sinks = tuple(sinks)
        self._decoding = dict(decoding or {})
        self._slot = NewestSlot()
        self._captions = 0
        self._skipped: Counter[str] = Counter()
        self._dropped_before = 0
        self._stopping = False
        self._started: float | None = None
        self._ended = "error"

    def stop(self) -> None:
        """End the stream after the caption in the making. Safe in signal handlers and threads."""
        self._stopping = True  # a plain flag: a handler must not take a lock its thread may hold

    def run(self) -> StreamReport:
        """Caption until the end and return the report."""
        for _ in self:
            pass
        assert self.report is not None
        return self.report

    def __iter__(self) -> Iterator[Event]:
        if self._started is not None:
            raise OptionsError("this pipeline has run; make a new one with a source opened anew")
        self._started = time.monotonic()
        patient = not self._source.live
        outlets = [Outlet(sink, self._options.queue, patient) for sink in self._sinks]
        reader = None
        if self._source.live:
            reader = threading.Thread(target=self._fill, name="stream reader", daemon=True)
            reader.start()
        try:
            for frame in self._frames():
                decision = self._gate.decide(frame)
                if not decision.passed:
                    self._skipped[decision.reason] += 1
                    continue
                event = self._caption(frame, decision)
                for outlet in outlets:
                    outlet.offer(event, self._must_end)
                yield event
                if self._captions == self._options.max_captions:
                    self._ended = "max captions"
                    break
                if outlets and all(outlet.gone for outlet in outlets):
                    self._ended = "sinks gone"
                    break
        except GeneratorExit:
            self._ended = "stopped"
            raise
        finally:
            self._finish(reader, outlets)

    def _fill(self) -> None:
        """The reader thread: leave each frame in the slot."""
        try:
            while not self._stopping and (frame := self._source.read()) is not None:
                self._slot.put(frame)
        except BaseException as error:
            self._slot.close(error)  # raised by take, in the captioning thread
        else:
            self._slot.close()

    def _frames(self) -> Iterator[Frame]:
        while not self._must_end():
            if not self._source.live:
                frame = self._source.read()
                if frame is not None:
                    self._slot.received += 1
            else:
                frame = self._slot.take(min(POLL, self._left()))
                if frame is None and not self._slot.ended:
                    continue
            if frame is None:
                if not self._must_end():
                    self._ended = "end of source"
                return
            yield frame

    def _left(self) -> float:
        """Seconds until the duration is over."""
        if self._options.duration is None or self._started is None:
            return float("inf")
        return max(0.0, self._started + self._options.duration - time.monotonic())

    def _must_end(self) -> bool:
        if self._stopping:
            self._ended = "stopped"
        elif self._left() <= 0.0:
            self._ended = "duration"
        else:
            return False
        return True

    def _caption(self, frame: Frame, decision: Decision) -> Event:
        by_reason = self._dropped()
        total = sum(by_reason.values())
        since_last, self._dropped_before = total - self._dropped_before, total
        begun = time.monotonic()
        caption = self._captioner(frame.image, channels=frame.channels, **self._decoding)
        self._captions += 1
        timings = caption.timings
        return Event(
            source=frame.source,
            frame=frame.index,
            captured_at=frame.captured_at,
            pts=frame.pts,
            text=caption.text,
            tokens=tuple(caption.tokens),
            score=caption.score,
            confidence=caption.confidence,
            sure=caption.sure,
            reason=decision.reason,
            latency_ms=Latency(
                capture_age=(begun - frame.monotonic) * 1000.0,
                preprocess=timings.load + timings.preprocess,
                encode=timings.encode,
                decode=timings.decode,
                total=(time.monotonic() - frame.monotonic) * 1000.0,
            ),
            dropped=Dropped(since_last, total, by_reason),
        )

    def _dropped(self) -> dict[str, int]:
        return {"stale": self._slot.stale, **self._source.lost}

    def _finish(self, reader: threading.Thread | None, outlets: list[Outlet]) -> None:
        self._stopping = True
        self._source.cancel()
        if reader is not None:
            reader.join(self._source.patience)
        deadline = time.monotonic() + self._options.flush_timeout
        for outlet in outlets:
            outlet.close(deadline)
        assert self._started is not None
        self.report = StreamReport(
            ended=self._ended,
            seconds=time.monotonic() - self._started,
            received=self._slot.received,
            captions=self._captions,
            skipped=dict(self._skipped),
            dropped={**self._dropped(), "stopped": self._slot.waiting},
            undelivered={outlet.sink.name: outlet.undelivered for outlet in outlets},
        )
