"""One camera's way through a stream: its reader, its slot, its gate, its sinks, its numbers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from edgecap.runtime.streams.controls import ControlledGate, Controls
from edgecap.runtime.streams.describe import Confirm, Job
from edgecap.runtime.streams.draft import Draft, Trust
from edgecap.runtime.streams.event import Dropped, Event, Latency, Notice, StreamReport
from edgecap.runtime.streams.frames import Frame, NewestSlot
from edgecap.runtime.streams.gate import Decision, FeatureGate, Gate
from edgecap.runtime.streams.options import StreamOptions
from edgecap.runtime.streams.sinks.base import Outlet, Sink
from edgecap.runtime.streams.sinks.frames import Watcher
from edgecap.runtime.streams.sources.base import LOG, Source

LOOK_AGAIN = 1.0  # seconds after a caption that leaves open who is there
PATIENCE = 5  # unsure captions in a row after which it stays open
JUMP = 1.0  # seconds by which the wall clock may move against the monotonic one unnoticed


class Lane:
    """One source with everything that is its own.

    A live source is read by a thread of its own into a slot that keeps the newest frame only. A
    source that is not live is read frame by frame by the captioning thread and loses none.

    controls : what may be changed from outside, such as ``controls.describe_now()``
    ended : why no frame will follow, or None
    error : what ended the source, if it was an error
    """

    def __init__(
        self,
        source: Source,
        gate: Gate,
        sinks: Sequence[Sink],
        options: StreamOptions,
        wake: threading.Event,
        prepare: Callable[[Frame], Frame] | None = None,
        tell: Callable[[Event], Event | None] | None = None,
    ) -> None:
        self.source = source
        self.controls = Controls()
        self.ended: str | None = None
        self.error: Exception | None = None
        self.captions = 0
        self.skipped: Counter[str] = Counter()
        self.drafts: Counter[str] = Counter()
        self.truncated = self.missed = 0
        self._options = options
        self._gate, self._controlled = gate, ControlledGate(gate, self.controls)
        self._sinks = tuple(sinks)
        self._watchers = [sink for sink in sinks if isinstance(sink, Watcher)]
        self._prepare, self._tell = prepare, tell
        self._slot = NewestSlot(wake)
        self._outlets: list[Outlet] = []
        self._reader: threading.Thread | None = None
        self._stopping = False
        self._draft: Draft | None = None
        self._trust = Trust()
        self._dropped_before = 0
        self._clock: float | None = None  # wall clock less monotonic
        self._last = float("-inf")  # monotonic moment of the last captioned frame
        self._last_seconds = 0.0  # the same on the source's own timeline
        self._unsure = 0  # captions in a row

    @property
    def name(self) -> str:
        """The source's name."""
        return self.source.name

    @property
    def features(self) -> bool:
        """Whether the gate compares features of the encoder."""
        return isinstance(self._gate, FeatureGate)

    @property
    def deserted(self) -> bool:
        """Whether there were sinks and none is left."""
        return bool(self._outlets) and all(outlet.gone for outlet in self._outlets)

    def start(self) -> None:
        """Start the threads of reader and sinks."""
        patient = not self.source.live
        size = self._options.queue
        self._outlets = [
            Outlet(sink, getattr(sink, "queue", None) or size, patient) for sink in self._sinks
        ]
        self.source.listener = self.tell
        if self.source.live:
            self._reader = threading.Thread(target=self._fill, name="stream reader", daemon=True)
            self._reader.start()

    def take(self) -> Frame | None:
        """A frame if one is there, without waiting for a camera; sets ``ended`` at the end."""
        if self.ended is not None:
            return None
        try:
            if self.source.live:
                frame = self._slot.take(0.0)
                if frame is None and self._slot.ended:
                    self.ended = "end of source"
            else:
                frame = self.source.read()
                if frame is None:
                    self.ended = "end of source"
                else:
                    self._slot.received += 1
        except Exception as error:
            self.ended, self.error = "error", error
            return None
        if frame is None:
            return None
        self._look_at_clock(frame)
        return frame if self._prepare is None else self._prepare(frame)

    def consider(self, frame: Frame, interval: float) -> Job | None:
        """A job where the gate passes the frame; ``interval`` is the governor's, in seconds."""
        if frame.monotonic - self._last < interval and self.captions and not frame.nearer:
            self.skipped["governed"] += 1
            return None
        decision = self._look_again(frame, self._controlled.decide(frame))
        if frame.nearer and decision.reason not in ("off", "first", "asked"):
            decision = Decision(True, "nearer")  # a reason that no look at features takes back
        for watcher in self._watchers:
            watcher.see(frame, decision.passed)
        if not decision.passed:
            self.skipped[decision.reason] += 1
            return None
        confirm: Confirm | None = (
            self._gate.confirm if isinstance(self._gate, FeatureGate) else None
        )
        deadline = self._options.deadline
        return Job(
            frame,
            decision,
            confirm=confirm,
            draft=self._draft,
            trust=self._trust,
            deadline=None if deadline is None else frame.monotonic + deadline,
            dropped=self._dropped(),
        )

    def _look_again(self, frame: Frame, decision: Decision) -> Decision:
        """Pass an unchanged frame all the same while it is open who has come or gone."""
        pause = max(LOOK_AGAIN, self._options.min_interval, self.controls.min_interval)
        since = frame.seconds - self._last_seconds
        undecided = self._unsure < PATIENCE and getattr(self._tell, "undecided", False)
        if decision.reason == "unchanged" and undecided and not 0.0 <= since < pause:
            return Decision(True, "refresh")
        return decision

    def event(self, job: Job) -> Event | None:
        """The event of a finished job, counted; None where there is nothing to say."""
        frame, caption = job.frame, job.caption
        if caption is None:
            self.skipped[job.decision.reason] += 1
            return None
        if job.verdict is not None:
            self.drafts[job.verdict] += 1
        if job.verdict != "kept":
            self._draft = job.next_draft
        self._last, self._last_seconds = frame.monotonic, frame.seconds
        self._unsure = 0 if caption.sure else self._unsure + 1
        heard = job.decision.reason == "asked" or bool(frame.nearer)
        if not caption.sure and self._options.unsure == "silent" and not heard:
            self.skipped["unsure"] += 1
            return None
        total = time.monotonic() - frame.monotonic
        self.captions += 1
        self.truncated += caption.truncated
        self.missed += job.deadline is not None and time.monotonic() > job.deadline
        dropped = sum(job.dropped.values())
        since_last, self._dropped_before = dropped - self._dropped_before, dropped
        timings = caption.timings
        event = Event(
            source=frame.source,
            frame=frame.index,
            captured_at=frame.captured_at,
            pts=frame.pts,
            text=caption.text,
            tokens=tuple(caption.tokens),
            score=caption.score,
            confidence=caption.confidence,
            sure=caption.sure,
            reason=job.decision.reason,
            latency_ms=Latency(
                capture_age=job.age * 1000.0,
                preprocess=timings.load + timings.preprocess,
                encode=timings.encode,
                decode=timings.decode,
                total=total * 1000.0,
            ),
            dropped=Dropped(since_last, dropped, job.dropped),
            truncated=caption.truncated,
            draft=job.verdict,
            header=frame.header,
            nearer=frame.nearer,
        )
        return event if self._tell is None else self._tell(event)

    def emit(self, item: Event | Notice, giving_up: Callable[[], bool]) -> None:
        """Give an event or notice to every sink."""
        for outlet in self._outlets:
            outlet.offer(item, giving_up)

    def tell(self, kind: str, text: str, **details: object) -> None:
        """Give a notice to every sink; safe in any thread."""
        self.emit(Notice(self.name, kind, text, time.time(), details), lambda: True)

    def forget(self) -> None:
        """Drop what belongs to the old model."""
        self._draft = None
        self._trust = Trust()

    def renew(
        self,
        options: StreamOptions,
        gate: Gate | None,
        prepare: Callable[[Frame], Frame] | None,
        tell: Callable[[Event], Event | None] | None,
    ) -> None:
        """Go on by other settings; ``gate`` is None where the present one stays."""
        self._options, self._prepare, self._tell = options, prepare, tell
        if gate is not None:
            self._gate, self._controlled = gate, ControlledGate(gate, self.controls)

    def finish(self, ended: str, seconds: float, deadline: float) -> StreamReport:
        """Stop and free everything but the source, which is only cancelled; the numbers."""
        self._stopping = True
        self.source.cancel()
        if self._reader is not None:
            self._reader.join(self.source.patience)
        self.source.listener = None
        for outlet in self._outlets:
            outlet.close(deadline)
        return self.report(ended, seconds)

    def report(self, ended: str, seconds: float) -> StreamReport:
        """The numbers as they are now; safe in any thread."""
        return StreamReport(
            ended=ended,
            seconds=seconds,
            received=self._slot.received,
            captions=self.captions,
            skipped=dict(self.skipped),
            dropped={**self._dropped(), "stopped": self._slot.waiting},
            undelivered={outlet.sink.name: outlet.undelivered for outlet in self._outlets},
            truncated=self.truncated,
            missed=self.missed,
            drafts=dict(self.drafts),
        )

    def stop_reading(self) -> None:
        """Let the reader thread end after the frame it is at."""
        self._stopping = True

    def _fill(self) -> None:
        """The reader thread: leave each frame in the slot."""
        try:
            while not self._stopping and (frame := self.source.read()) is not None:
                self._slot.put(frame)
        except BaseException as error:
            self._slot.close(error)  # raised by take, in the captioning thread
        else:
            self._slot.close()

    def _dropped(self) -> dict[str, int]:
        return {"stale": self._slot.stale, **self.source.lost}

    def _look_at_clock(self, frame: Frame) -> None:
        clock = frame.captured_at - frame.monotonic
        if self._clock is not None and abs(clock - self._clock) > JUMP:
            jump = clock - self._clock
            text = f"the clock was set {abs(jump):.1f} s {'forward' if jump > 0 else 'back'}"
            LOG.warning("%s: %s; intervals and latencies are not affected", self.name, text)
            self.tell("clock", text, seconds=round(jump, 3))
        self._clock = clock
