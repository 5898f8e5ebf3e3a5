"""Messages in, events out: what the node does between its callbacks, without rclpy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import edgecap
from edgecap.runtime.errors import EdgeCapError, ImageError
from edgecap.runtime.messages.images import header_of, picture_of
from edgecap.runtime.streams import Pipeline
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.narrator import Narrator, preparation
from edgecap.runtime.streams.profiles import load_profile
from edgecap.runtime.streams.sources.base import Picture, Source
from edgecap_ros.parameters import NodeOptions

OLDEST = 60.0  # seconds; a stamp older than this is of another clock, such as a simulator's
OK, WARN, ERROR = 0, 1, 2  # levels of diagnostic_msgs/DiagnosticStatus


class Status(NamedTuple):
    """What ``diagnostic_msgs/DiagnosticStatus`` says."""

    level: int
    message: str
    values: dict[str, str]


class TopicSource(Source):
    """Frames out of messages that ``put`` is given; only the newest message is kept."""

    def __init__(self, name: str) -> None:
        super().__init__(name, live=True)
        self.received = 0
        self.last: float | None = None  # monotonic moment of the last message
        self._message: Any = None
        self._arrived = threading.Condition()
        self._reasons: set[str] = set()

    def put(self, message: Any) -> None:
        """Take a message; safe in any thread, at once."""
        with self._arrived:
            self.received += 1
            self.last = time.monotonic()
            if self._message is not None:
                self.lost["overtaken"] += 1
            self._message = message
            self._arrived.notify()

    def cancel(self) -> None:
        """As in ``Source``, and wake a read that waits."""
        super().cancel()
        with self._arrived:
            self._arrived.notify_all()

    def _next(self) -> Picture | None:
        while not self._cancelled.is_set():
            with self._arrived:
                self._arrived.wait_for(
                    lambda: self._message is not None or self._cancelled.is_set()
                )
                message, self._message = self._message, None
            if message is None:
                continue
            try:
                image, header = picture_of(message), header_of(message)
            except ImageError as error:
                self._leave_out(str(error))
                continue
            age = time.time() - (header.sec + header.nanosec / 1e9)
            captured = time.monotonic() - age if 0.0 <= age < OLDEST else None
            return Picture(image, captured=captured, header=header)
        return None

    def _leave_out(self, reason: str) -> None:
        self.lost["unreadable"] += 1
        if reason not in self._reasons:
            self._reasons.add(reason)
            self.say("unreadable", f"{self.name}: a message is left out: {reason}")

    def _release(self) -> None:
        self._message = None


class Captioning:
    """A model and, while it is started, a stream over one topic.

    options : the node's
    name : the topic, as events name their source
    deliver : is given each event, in a thread of the stream's
    tell : is given lines about the stream (an unreadable image, lowered quality)

    Raises EdgeCapError for a model, profile or option that cannot be used.
    """

    def __init__(
        self,
        options: NodeOptions,
        name: str,
        deliver: Callable[[Event], None],
        tell: Callable[[str], None],
    ) -> None:
        self._options, self._name = options, name
        self._deliver, self._tell = deliver, tell
        self._preset = load_profile(options.profile or None)
        self._stream = self._preset.stream_options(**options.stream())
        self._captioner = edgecap.load(**options.loading())
        self._decoding = {
            "beams": None,
            **self._preset.decoding_options(beams=options.beams or None),
        }
        self._captioner.options(**self._decoding)  # a bad one is told now
        self.model = str(getattr(self._captioner, "name", ""))
        self.captions = 0
        self._latency = 0.0
        self._error = ""
        self._source: TopicSource | None = None
        self._pipeline: Pipeline | None = None
        self._thread: threading.Thread | None = None
        self._asked = threading.Condition()
        self._answers = 0  # captions that somebody asked for
        self._answer: Event | None = None

    def start(self) -> None:
        """Begin a stream; ``put`` feeds it."""
        self._error = ""
        self._source = source = TopicSource(self._name)
        told = bool(self._options.profile)
        self._pipeline = Pipeline(
            source,
            self._captioner,
            sinks=[_Delivery(self)],
            options=self._stream,
            decoding=self._decoding,
            prepare=preparation(self._preset, source) if told else None,
            tell=Narrator(self._preset) if told else None,
        )
        self._thread = threading.Thread(target=self._run, name="captions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the stream and wait for it."""
        pipeline, thread, self._pipeline, self._thread = self._pipeline, self._thread, None, None
        if pipeline is not None and thread is not None:
            pipeline.stop()
            thread.join(10.0)
        if self._source is not None:
            self._source.close()

    def put(self, message: Any) -> None:
        """Give the stream an image."""
        if self._source is not None:
            self._source.put(message)

    def describe(self, timeout: float = 0.0) -> Event | str:
        """The event of the next image, whatever the gate says; or in one line why there is none.

        timeout : seconds; 0: the option ``describe_timeout``
        """
        pipeline = self._pipeline
        if pipeline is None:
            return "the node is not active; activate it first"
        if not 0.0 <= timeout <= 3600.0:
            return f"timeout is {timeout:g} s; give 0 to 3600"
        limit = timeout or self._options.describe_timeout
        with self._asked:
            before = self._answers
            pipeline.describe_now()
            self._asked.wait_for(lambda: self._answers > before, limit)
            if self._answers > before and self._answer is not None:
                return self._answer
        return self._error or f"no image on {self._name} was captioned within {limit:g} s"

    def status(self) -> Status:
        """What diagnostics say of the stream."""
        source, now = self._source, time.monotonic()
        values = {"model": self.model, "captions": str(self.captions)}
        if source is None or self._pipeline is None:
            return Status(OK, "inactive", values)
        values["images"] = str(source.received)
        values |= {f"images {reason}": str(count) for reason, count in source.lost.items()}
        if self.captions:
            values["latency_ms of the last caption"] = f"{self._latency:.1f}"
        if self._error:
            return Status(ERROR, self._error, values)
        if source.last is None:
            return Status(WARN, f"no image has come on {self._name}", values)
        silence = now - source.last
        if silence > self._options.silent_after:
            return Status(WARN, f"no image on {self._name} for {silence:.0f} s", values)
        if source.lost["unreadable"] == source.received:
            return Status(WARN, f"no image on {self._name} can be read", values)
        return Status(OK, "captioning", values)

    def _run(self) -> None:
        assert self._pipeline is not None
        try:
            self._pipeline.run()
        except EdgeCapError as error:
            self._fail(str(error))
        except Exception as error:  # a node says so and lives on, to be configured anew
            self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, text: str) -> None:
        self._error = text
        self._tell(text)

    def _took(self, event: Event) -> None:
        self.captions += 1
        self._latency = event.latency_ms.total
        if event.reason == "asked":
            with self._asked:
                self._answers, self._answer = self._answers + 1, event
                self._asked.notify_all()
        self._deliver(event)


class _Delivery:
    """The stream's sink."""

    name = "topics"

    def __init__(self, owner: Captioning) -> None:
        self._owner = owner

    def write(self, event: Event) -> None:
        self._owner._took(event)

    def notice(self, notice: Notice) -> None:
        self._owner._tell(notice.text)

    def close(self) -> None:
        pass
