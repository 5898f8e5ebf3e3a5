"""What every sink is, and the thread that keeps a slow one away from the camera."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from edgecap.runtime.streams.event import Event, Notice

LOG = logging.getLogger("edgecap.streams")
POLL = 0.1  # seconds between looks at whether a waiting offer should give up


class SinkGone(Exception):
    """A sink's other end has left for good (a closed pipe): nothing more can be given to it."""


class Sink(Protocol):
    """Takes events to where they are wanted. A new kind is a new file with a class like this.

    ``write`` is called from one thread, may block and may raise: ``SinkGone`` when it is no use to
    try again, anything else when only this event failed. A sink that has a method ``notice`` is
    given notices by it, in their order among the events. An attribute ``queue`` is how many events
    wait for it at most, in place of ``StreamOptions.queue``.
    """

    name: str

    def write(self, event: Event) -> None:
        """Deliver one event."""

    def close(self) -> None:
        """Free what the sink holds; called once, after the last event."""


class Outlet:
    """One sink with its own bounded queue and thread.

    Where events come faster than the sink takes them, the oldest that waits is given up and
    counted, or, if the outlet is ``patient`` (nothing live is waiting), the offer waits.
    """

    def __init__(self, sink: Sink, size: int, patient: bool) -> None:
        self.sink = sink
        self.undelivered = 0  # events given up: overflow, failed writes, what waited at the end
        self.gone = False  # the sink takes nothing any more
        self._size = size
        self._patient = patient
        self._events: deque[Event | Notice] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._writing = False  # an event is in the sink's hands
        self._warned = False
        self._thread = threading.Thread(target=self._work, name=f"sink {sink.name}", daemon=True)
        self._thread.start()

    def offer(self, event: Event | Notice, giving_up: Callable[[], bool]) -> None:
        """Queue an event: at once, or if patient when there is room or ``giving_up()`` is true."""
        with self._changed:
            while self._patient and len(self._events) >= self._size and not self.gone:
                if giving_up():
                    break
                self._changed.wait(POLL)
            if self.gone:
                self.undelivered += 1
                return
            if len(self._events) >= self._size:
                self._events.popleft()
                self.undelivered += 1
            self._events.append(event)
            self._changed.notify_all()

    def close(self, deadline: float) -> None:
        """Deliver what waits, until ``deadline`` on ``time.monotonic``, then let the sink go.

        A sink that blocks for ever is left behind with its (daemon) thread: nothing can stop it.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self.undelivered += len(self._events)
            self._events.clear()
            if self._thread.is_alive():
                self.gone = True
                self.undelivered += self._writing
                LOG.warning("the sink %s does not answer and is left behind", self.sink.name)

    def _work(self) -> None:
        while (event := self._wait()) is not None:
            try:
                if isinstance(event, Event):
                    self.sink.write(event)
                elif (notice := getattr(self.sink, "notice", None)) is not None:
                    notice(event)
            except SinkGone:
                self._give_up()
            except Exception as error:
                self._fail(error)
        try:
            self.sink.close()
        except Exception as error:
            LOG.warning("the sink %s failed to close: %s", self.sink.name, error)

    def _wait(self) -> Event | Notice | None:
        with self._changed:
            self._writing = False
            while not self._events and not self._closing:
                self._changed.wait()
            event = self._events.popleft() if self._events and not self.gone else None
            self._writing = event is not None
            self._changed.notify_all()
            return event

    def _give_up(self) -> None:
        with self._changed:
            self.gone = True
            self.undelivered += 1 + len(self._events)
            self._events.clear()
            self._closing = True
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self.undelivered += 1
        if not self._warned:
            self._warned = True
            LOG.warning("the sink %s failed (said once): %s", self.sink.name, error)
