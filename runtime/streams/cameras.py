"""Several cameras on one model: each has its turn, and what is ready at once is encoded at once."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecap.runtime.errors import EdgeCapError, OptionsError
from edgecap.runtime.streams.controls import Controls
from edgecap.runtime.streams.describe import Describer, Job
from edgecap.runtime.streams.event import Event, StreamReport
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.gate import Gate, make_gate
from edgecap.runtime.streams.governor import Change, Governor, make_levels
from edgecap.runtime.streams.lane import Lane
from edgecap.runtime.streams.options import StreamOptions
from edgecap.runtime.streams.sinks.base import Sink
from edgecap.runtime.streams.sources.base import LOG, Source
from edgecap.runtime.streams.watchdog import WatchDog

POLL = 0.2  # seconds between looks at the stop flag while no frame comes
MAX_BATCH = 8  # frames encoded together


@dataclass(frozen=True)
class Feed:
    """An open source, and what is its own.

    sinks : where its events go
    gate : what decides which of its frames are captioned; None for the one that options name
    prepare : changes each frame before anything looks at it, as a privacy mask does
    tell : changes each event before sinks get it; None as its answer: it is not told
    """

    source: Source
    sinks: Sequence[Sink] = ()
    gate: Gate | None = None
    prepare: Callable[[Frame], Frame] | None = None
    tell: Callable[[Event], Event | None] | None = None


@dataclass(frozen=True)
class Renewal:
    """What a running stream goes on with: another model, or other settings, too.

    options, decoding : as in ``Cameras``
    parts : ``prepare`` and ``tell`` of each camera, in their order
    """

    captioner: Any
    options: StreamOptions
    decoding: Mapping[str, Any]
    parts: Sequence[tuple[Callable[[Frame], Frame] | None, Callable[[Event], Event | None] | None]]


class Cameras:
    """Captions several sources with one captioner until all have ended; runs once.

    In each round the captioning thread takes at most one frame of each camera, the newest, and
    begins with another camera each time: none can starve the others, whatever its frame rate. The
    frames that pass their gates are encoded as one batch and, without a deadline, decoded as one.

    captioner, options, decoding : as in ``Pipeline``; ``max_captions`` counts all cameras together

    A camera that fails is told of and left out while others run; when the last one has failed, its
    error is raised. ``reports`` holds a report for each camera at the end.
    """

    def __init__(
        self,
        feeds: Sequence[Feed],
        captioner: Any,
        *,
        options: StreamOptions | None = None,
        decoding: Mapping[str, Any] | None = None,
    ) -> None:
        if not feeds:
            raise OptionsError("no camera is given; give at least one")
        self.reports: list[StreamReport] = []
        self._options = options if options is not None else StreamOptions()
        self._describer = Describer(captioner, decoding or {}, self._options.near)
        self._wake = threading.Event()
        features = self._describer.features
        self._lanes = [
            Lane(
                feed.source,
                feed.gate or make_gate(self._options, feed.source.stills, features),
                feed.sinks,
                self._options,
                self._wake,
                feed.prepare,
                feed.tell,
            )
            for feed in feeds
        ]
        if any(lane.features for lane in self._lanes):
            self._describer.use_drafts()
        beams = self._describer.beams
        self._governor = Governor(make_levels(beams), self._options.slowest, self._options.hottest)
        self._dog = WatchDog(self._options.stuck, self._tell)
        # What waits to be taken: a model, and settings where they change, too.
        self._next: deque[tuple[Describer, Renewal | None]] = deque(maxlen=1)
        self._own_gates = [feed.gate is not None for feed in feeds]
        self._turn = 0
        self._captions = 0
        self._stopping = False
        self._started: float | None = None
        self._ended = "error"

    @property
    def controls(self) -> list[Controls]:
        """What may be changed while the stream runs, for each camera."""
        return [lane.controls for lane in self._lanes]

    def progress(self) -> list[StreamReport]:
        """The numbers of each camera so far; safe in any thread."""
        seconds = 0.0 if self._started is None else time.monotonic() - self._started
        return [lane.report(lane.ended or "", seconds) for lane in self._lanes]

    def describe_now(self) -> None:
        """Have every camera's next frame captioned whatever the gate says. Safe in any thread."""
        for lane in self._lanes:
            lane.controls.describe_now()

    def exchange(self, captioner: Any) -> None:
        """Caption with another model from the next frame on. Safe in any thread.

        One that cannot do what is asked of the stream is refused in a notice.
        """
        try:
            new = Describer(captioner, self._describer.decoding, self._options.near)
            if any(lane.features for lane in self._lanes):
                new.use_drafts()
        except EdgeCapError as error:
            LOG.warning("the new model is refused: %s", error)
            self._tell("model", f"the new model is refused: {error}")
            return
        self._next.append((new, None))

    def renew(self, renewal: Renewal) -> None:
        """Go on with another model and other settings from the next frame on. Safe in any thread.

        Where options change, gates made from them begin anew, so that the next frame is a first
        one. Sinks stay, and so do ``queue`` and what was counted.

        Raises OptionsError for what cannot be.
        """
        if len(renewal.parts) != len(self._lanes):
            raise OptionsError(f"{len(renewal.parts)} parts for {len(self._lanes)} cameras")
        new = Describer(renewal.captioner, renewal.decoding, renewal.options.near)
        if any(lane.features for lane in self._lanes) or renewal.options.gate == "auto":
            new.use_drafts()
        self._next.append((new, renewal))

    def stop(self) -> None:
        """End the stream after the caption in the making. Safe in signal handlers and threads."""
        self._stopping = True  # a plain flag: a handler must not take a lock its thread may hold

    def run(self) -> list[StreamReport]:
        """Caption until the end and return the reports."""
        for _ in self:
            pass
        return self.reports

    def __iter__(self) -> Iterator[Event]:
        if self._started is not None:
            raise OptionsError("this pipeline has run; make a new one with a source opened anew")
        self._started = time.monotonic()
        try:
            for lane in self._lanes:
                lane.start()
            self._dog.start()
            yield from self._events()
        except GeneratorExit:
            self._ended = "stopped"
            raise
        finally:
            self._finish()
        if self._ended == "error":
            error = next(lane.error for lane in self._lanes if lane.error is not None)
            raise error

    def _events(self) -> Iterator[Event]:
        while not self._must_end():
            self._wake.clear()
            self._exchange()
            jobs, frames = self._jobs()
            for lane, event in self._describe(jobs):
                lane.emit(event, self._must_end)
                self._captions += 1
                self._govern(self._governor.observe(event.latency_ms.total / 1e3, time.monotonic()))
                yield event
                if self._captions == self._options.max_captions:
                    self._ended = "max captions"
                    return
            if any(lane.deserted for lane in self._lanes) and all(
                lane.deserted or lane.ended for lane in self._lanes
            ):
                self._ended = "sinks gone"
                return
            if frames:
                self._dog.beat()
                continue
            if all(lane.ended is not None for lane in self._lanes):
                if not self._must_end():
                    failed = all(lane.error is not None for lane in self._lanes)
                    self._ended = "error" if failed else "end of source"
                return
            self._govern(self._governor.look(time.monotonic()))
            self._wake.wait(min(POLL, self._left()))

    def _jobs(self) -> tuple[list[tuple[Lane, Job]], int]:
        """One round: at most one frame of each camera, and how many frames there were."""
        count = len(self._lanes)
        self._turn = (self._turn + 1) % count
        jobs, frames = [], 0
        for index in range(count):
            lane = self._lanes[(self._turn + index) % count]
            running = lane.ended is None
            frame = lane.take()
            if running and lane.error is not None and count > 1:
                LOG.warning("%s", lane.error)
                lane.tell("lost", str(lane.error))
            if frame is None:
                continue
            frames += 1
            job = lane.consider(frame, self._governor.level.interval)
            if job is not None:
                jobs.append((lane, job))
        return jobs, frames

    def _describe(self, jobs: list[tuple[Lane, Job]]) -> Iterator[tuple[Lane, Event]]:
        level = self._governor.level
        beams = self._describer.beams
        changes = {} if level.beams is None else {"beams": min(level.beams, beams)}
        for start in range(0, len(jobs), MAX_BATCH):
            chunk = jobs[start : start + MAX_BATCH]
            self._dog.work("captioning")
            self._describer.describe([job for _, job in chunk], **changes)
            for lane, job in chunk:
                event = lane.event(job)
                if event is not None:
                    yield lane, event

    def _exchange(self) -> None:
        """Take the model that was left for us."""
        if not self._next:
            return
        self._describer, renewal = self._next.popleft()
        for lane in self._lanes:
            lane.forget()
        text = f"captions come from {getattr(self._describer.captioner, 'name', 'another model')}"
        if renewal is not None:
            self._take(renewal)
            text += " by new settings"
        LOG.warning("%s now", text)
        self._tell("model", f"{text} now")

    def _take(self, renewal: Renewal) -> None:
        options, before = renewal.options, self._options
        self._options = options
        features = self._describer.features
        for lane, own, parts in zip(self._lanes, self._own_gates, renewal.parts, strict=True):
            keeps = own or options == before
            gate = None if keeps else make_gate(options, lane.source.stills, features)
            lane.renew(options, gate, *parts)
            lane.source.shrink(1.0)
        levels = make_levels(self._describer.beams)
        self._governor = Governor(levels, options.slowest, options.hottest)
        self._dog.expect(options.stuck)

    def _govern(self, change: Change | None) -> None:
        if change is None:
            return
        for lane in self._lanes:
            lane.source.shrink(change.level.scale)
        verb = "lowered" if change.lowered else "raised"
        text = f"quality is {verb} to {change.level} ({change.why})"
        LOG.warning("%s", text)
        self._tell("governor", text, step=change.step, lowered=change.lowered)

    def _tell(self, kind: str, text: str, **details: object) -> None:
        for lane in self._lanes:
            lane.tell(kind, text, **details)

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

    def _finish(self) -> None:
        self._stopping = True
        assert self._started is not None
        for lane in self._lanes:
            lane.stop_reading()
            lane.source.cancel()
        self._dog.close()
        deadline = time.monotonic() + self._options.flush_timeout
        self.reports = [
            lane.finish(self._ended, time.monotonic() - self._started, deadline)
            for lane in self._lanes
        ]
