"""The watch-dog: tells when nothing has moved for too long, and informs systemd's own."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable


class WatchDog:
    """A thread that expects ``beat`` at least every ``limit`` seconds.

    A beat means that a frame was captioned or let go by the gate; an idle thread gives none. Where
    systemd asks for it (``Type=notify``, ``WatchdogSec=``), it is told of life only while there are
    beats, and restarts a stream that has none.

    tell : called with ("stuck", what) once when beats fail, ("well", what) when they are back
    """

    def __init__(self, limit: float, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        self._last = time.monotonic()
        self._working = ""
        self._stuck = False
        self._done = threading.Event()
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        ours = os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        self._systemd = int(microseconds) / 1e6 if ours and microseconds.isdigit() else None
        self.expect(limit)
        self._thread = threading.Thread(target=self._work, name="watch-dog", daemon=True)

    def expect(self, limit: float) -> None:
        """Tell of a silence of ``limit`` seconds from now on."""
        # Half the time systemd gives, as its manual advises.
        self._period = min(limit / 4.0, *([self._systemd / 2.0] if self._systemd else [1.0]))
        self._limit = limit

    def start(self) -> None:
        """Begin to watch; tells systemd that the service is ready."""
        self._last = time.monotonic()
        notify_systemd("READY=1")
        self._thread.start()

    def beat(self) -> None:
        """A frame has been dealt with."""
        self._last, self._working = time.monotonic(), ""

    def work(self, what: str) -> None:
        """Say what is being done, for the message when it never ends."""
        self._working = what

    def close(self) -> None:
        """End the thread."""
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()
        notify_systemd("STOPPING=1")

    def _work(self) -> None:
        while not self._done.wait(self._period):
            silent = time.monotonic() - self._last
            if silent < self._limit:
                if self._stuck:
                    self._stuck = False
                    self._tell("well", "frames are captioned again")
                if self._systemd is not None:
                    notify_systemd("WATCHDOG=1")
            elif not self._stuck:
                self._stuck = True
                what = f"{self._working} does not end" if self._working else "no frame comes"
                self._tell("stuck", f"nothing for {self._limit:g} s: {what}")


def notify_systemd(message: str, address: str | None = None) -> bool:
    """Send one message of sd_notify(3) where a service manager listens; whether it was sent.

    address : where it listens; None for what the environment says
    """
    address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]  # a name without a file
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.sendto(message.encode(), address)
    except OSError:
        return False
    return True
