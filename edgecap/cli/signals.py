"""What signals do to a stream: end it, read its model and settings anew, ask for a caption."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import click


@contextlib.contextmanager
def reloading_on_signals(
    load: Callable[[], Any], exchange: Callable[[Any], None], describe_now: Callable[[], None]
) -> Iterator[None]:
    """On SIGHUP call ``load`` in a thread and ``exchange`` what it gives; on SIGUSR1
    ``describe_now``.

    What cannot be loaded is told of in one line, and all goes on as before.
    """
    import threading

    from edgecap.runtime.errors import EdgeCapError

    wanted, done = threading.Event(), threading.Event()

    def work() -> None:
        while wanted.wait() and not done.is_set():
            wanted.clear()
            try:
                exchange(load())
            except EdgeCapError as error:
                click.echo(f"edgecap: all stays as it is: {error}", err=True)

    thread = threading.Thread(target=work, name="model loader", daemon=True)
    thread.start()

    def ask(*_: object) -> None:
        # A handler must not take a lock its thread may hold, as those of controls and events.
        threading.Thread(target=describe_now, daemon=True).start()

    def reload(*_: object) -> None:
        threading.Thread(target=wanted.set, daemon=True).start()

    before = {
        number: signal.signal(number, handler)
        for number, handler in ((signal.SIGHUP, reload), (signal.SIGUSR1, ask))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        done.set()
        wanted.set()


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call ``stop`` on SIGINT and SIGTERM; gives the list of signals seen.

    A second Ctrl-C interrupts at once, for those who do not want to wait for the first.
    """
    seen: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        seen.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
