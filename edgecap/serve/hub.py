"""Captions of cameras on their way to browsers: the history, its thumbnails, and who listens."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

from edgecap.serve.problems import Problem

WAITING = 64  # events that wait for one slow client; the oldest is given up


@dataclass(frozen=True)
class Message:
    """One server-sent event. ``number``: of a caption, by which a client asks for what it missed"""

    kind: str
    data: str
    number: int | None = None


@dataclass(eq=False)
class Entry:
    """A caption of the history. ``values`` are ready for JSON; ``thumbnail`` is a JPEG or None."""

    number: int
    values: dict[str, Any]
    thumbnail: bytes | None


@dataclass(eq=False)
class Listener:
    """A client of the events."""

    waiting: deque[Message] = field(default_factory=lambda: deque(maxlen=WAITING))
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def offer(self, message: Message) -> None:
        """Leave a message."""
        self.waiting.append(message)
        self.wake.set()

    async def next(self) -> Message:
        """Wait for the next message."""
        while not self.waiting:
            self.wake.clear()
            await self.wake.wait()
        return self.waiting.popleft()


class Hub:
    """Keeps the newest captions and tells listeners. Belongs to the event loop, but ``publish``.

    kept : captions in the history; with a thumbnail of some 10 kB each, memory is bounded
    most : listeners at once
    """

    def __init__(self, kept: int, most: int) -> None:
        self._kept, self._most = kept, most
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._listeners: set[Listener] = set()
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False
        # Told of each caption: source, sure, seconds, milliseconds by stage.
        self.counted: Callable[[str, bool, float, dict[str, float]], None] | None = None

    def start(self) -> None:
        """Belong to the running event loop."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Take no more captions."""
        self._closing = True

    @property
    def closing(self) -> bool:
        """Whether the server ends: streams of events and pictures end with it."""
        return self._closing

    @property
    def listeners(self) -> int:
        """Clients that listen."""
        return len(self._listeners)

    def publish(self, values: Mapping[str, Any], thumbnail: bytes | None, finished: float) -> None:
        """Add a caption; safe in any thread.

        finished : moment on ``time.monotonic`` at which its event was made
        """
        self._soon(self._add, dict(values), thumbnail, finished)

    def tell(self, kind: str, values: Mapping[str, Any]) -> None:
        """Tell listeners of something that is no caption; safe in any thread."""
        self._soon(self._tell, Message(kind, msgspec.json.encode(values).decode()))

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """The last captions, newest first."""
        entries = list(self._entries.values())[-limit:] if limit > 0 else []
        return [entry.values for entry in reversed(entries)]

    def thumbnail(self, number: int) -> bytes | None:
        """The JPEG of a caption, if it is still kept."""
        entry = self._entries.get(number)
        return None if entry is None else entry.thumbnail

    @contextmanager
    def listen(self, last: int | None) -> Iterator[Listener]:
        """A listener; it first gets what came after the caption ``last``, as far as it is kept.

        Raises ``Problem`` (503) where too many listen.
        """
        if len(self._listeners) >= self._most:
            raise Problem(503, f"{self._most} clients listen already; close one", retry=10)
        listener = Listener()
        if last is not None:
            # A number from before a restart is greater than any of ours: then all is new.
            after = last if last <= self._number else 0
            for entry in self._entries.values():
                if entry.number > after:
                    listener.offer(_message(entry))
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def _soon(self, call: Any, *arguments: Any) -> None:
        if self._loop is not None and not self._closing:
            self._loop.call_soon_threadsafe(call, *arguments)

    def _add(self, values: dict[str, Any], thumbnail: bytes | None, finished: float) -> None:
        now = time.monotonic()
        self._number += 1
        number = self._number
        values["id"] = number
        values["latency_ms"]["deliver"] = round((now - finished) * 1e3, 3)
        values["thumbnail"] = None if thumbnail is None else f"/v1/history/{number}.jpg"
        entry = Entry(number, values, thumbnail)
        self._entries[number] = entry
        while len(self._entries) > self._kept:
            self._entries.popitem(last=False)
        if self.counted is not None:
            stages = {name: value for name, value in values["latency_ms"].items() if value}
            total = stages.pop("total", 0.0)
            self.counted(values["source"], values["sure"], total / 1e3, stages)
        self._tell(_message(entry))

    def _tell(self, message: Message) -> None:
        for listener in self._listeners:
            listener.offer(message)


def _message(entry: Entry) -> Message:
    return Message("caption", msgspec.json.encode(entry.values).decode(), entry.number)
