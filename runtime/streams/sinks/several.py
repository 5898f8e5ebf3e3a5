"""Sinks of several cameras: one for all where that can be, one for each where it must be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.sinks.base import Sink
from edgecap.runtime.streams.sinks.opening import ENDINGS, KINDS, SinkContext, open_sink

CAMERA, NUMBER = "{camera}", "{number}"
PICTURES = ("video", "subtitles", "rtsp-server", "mcap")  # what shows or follows one camera
OWN = ("mqtt", "mqtts", "window")  # these tell cameras apart by themselves


class Shared:
    """One camera's hold on a sink that several write to; the last one to close it closes it."""

    def __init__(self, sink: Sink, holders: list[Shared], lock: threading.Lock) -> None:
        self.name = sink.name
        self._sink, self._holders, self._lock = sink, holders, lock
        holders.append(self)

    def write(self, event: Event) -> None:
        """Deliver one event, whole: no other camera's comes between."""
        with self._lock:
            self._sink.write(event)

    def notice(self, notice: Notice) -> None:
        """Deliver a notice where the sink takes them."""
        take = getattr(self._sink, "notice", None)
        if take is not None:
            with self._lock:
                take(notice)

    def close(self) -> None:
        """Let go of the sink."""
        with self._lock:
            if self in self._holders:
                self._holders.remove(self)
                if not self._holders:
                    self._sink.close()


def share(sink: Sink, cameras: int) -> list[Sink]:
    """``sink`` as one for each of so many cameras; itself where there is only one."""
    if cameras == 1:
        return [sink]
    holders: list[Shared] = []
    lock = threading.Lock()
    return [Shared(sink, holders, lock) for _ in range(cameras)]


def open_for_each(address: str, contexts: Sequence[SinkContext]) -> list[Sink]:
    """The sinks of one address, one for each camera, in their order.

    ``{camera}`` in the address becomes the camera's name, ``{number}`` its number from 1. Without
    them a log or a voice is opened once for all; what shows the pictures of one camera needs them.

    Raises SinkError, also where opening one of several fails: those before it are closed.
    """
    if len(contexts) == 1 or CAMERA in address or NUMBER in address:
        addresses = [
            address.replace(CAMERA, context.camera).replace(NUMBER, str(number))
            for number, context in enumerate(contexts, 1)
        ]
        return _open_all(list(zip(addresses, contexts, strict=True)))
    kind = address.partition(":")[0]
    if kind not in KINDS:
        kind = ENDINGS.get(Path(address).suffix.lower(), "")
    if kind in OWN:
        return _open_all([(address, context) for context in contexts])
    if kind in PICTURES:
        example = address.replace(".", f"-{CAMERA}.") if "." in address else f"{address}{NUMBER}"
        raise SinkError(
            f"{address!r} holds one camera and {len(contexts)} are given; put {CAMERA} or {NUMBER} "
            f"into it, such as {example}"
        )
    return share(open_sink(address, contexts[0]), len(contexts))


def unlike_names(names: Sequence[str]) -> list[str]:
    """The names with a number behind those that came before: main, main-2, main-3."""
    found: list[str] = []
    for name in names:
        number, unlike = 1, name
        while unlike in found:
            number += 1
            unlike = f"{name}-{number}"
        found.append(unlike)
    return found


def _open_all(wanted: Sequence[tuple[str, SinkContext]]) -> list[Sink]:
    opened: list[Sink] = []
    try:
        for address, context in wanted:
            opened.append(open_sink(address, context))
    except BaseException:
        for sink in opened:
            sink.close()
        raise
    return opened
