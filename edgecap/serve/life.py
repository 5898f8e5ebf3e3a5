"""What a service manager is told: ready, alive as long as captions come, stopping."""

from __future__ import annotations

import asyncio
import os

import cv2
import numpy as np

from edgecap.runtime.errors import EdgeCapError
from edgecap.runtime.streams.watchdog import notify_systemd
from edgecap.serve.live import Live
from edgecap.serve.options import ServeOptions
from edgecap.serve.posted import PostedPictures
from edgecap.serve.problems import Problem
from edgecap.serve.status import Status

PERIOD = 10.0  # seconds between looks where nobody asks for a shorter time
START = 0.2  # the same until the first progress


class Supervisor:
    """systemd's socket and watchdog, taken out of the environment.

    The cameras' own watch-dog would speak to systemd as well, and say "stopping" at each change of
    the profile.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        microseconds = os.environ.pop("WATCHDOG_USEC", "")
        ours = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.limit = int(microseconds) / 1e6 if ours and microseconds.isdigit() else None

    def say(self, message: str) -> None:
        """Send a message of sd_notify(3), if somebody listens."""
        notify_systemd(message, self._address)


class Life:
    """Feeds the watchdog only with progress: frames, posted pictures, or a caption of its own."""

    def __init__(
        self,
        status: Status,
        posted: PostedPictures,
        live: Live,
        options: ServeOptions,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._status, self._posted, self._live, self._options = status, posted, live, options
        self._supervisor = Supervisor() if supervisor is None else supervisor
        self._done = 0  # posted pictures at the last look
        self._seen = 0.0  # when a camera's frame was dealt with, as of the last look

    async def watch(self) -> None:
        """Say READY after the first progress, then WATCHDOG for as long as there is more."""
        limit = self._supervisor.limit
        # A third of the time that systemd gives: a check of our own may take a part of it.
        period = PERIOD if limit is None else limit / 3.0
        while not await self.moves():
            await asyncio.sleep(min(period, START))
        self._supervisor.say("READY=1\nSTATUS=captions come")
        while True:
            await asyncio.sleep(period)
            if await self.moves():
                self._supervisor.say("WATCHDOG=1\nSTATUS=captions come")
            else:
                problem = self._status.problem() or "no frame comes"
                self._supervisor.say(f"STATUS={' '.join(problem.split())}")

    def stopping(self) -> None:
        """The end has begun."""
        self._supervisor.say("STOPPING=1")

    async def moves(self) -> bool:
        """Whether something has been captioned since the last call, or can be.

        With cameras their frames count, of any of them. Without, posted pictures do, and where none
        came a small picture is captioned to see whether that still works.
        """
        if self._live.cameras:
            seen = max(viewer.seen for viewer in self._live.viewers.values())
            moved, self._seen = seen > self._seen, seen
            return moved and self._live.ended is None
        if self._posted.done == self._done:
            try:
                await asyncio.wait_for(
                    self._posted.describe(_picture(), self._posted.captioner.options(beams=1)),
                    self._options.stuck,
                )
            except (Problem, EdgeCapError, asyncio.TimeoutError):
                return False
        self._done = self._posted.done
        return True


def _picture() -> bytes:
    """A small grey ramp as PNG."""
    ramp = np.linspace(0, 255, 64, dtype=np.uint8)
    return bytes(cv2.imencode(".png", np.tile(ramp, (48, 1)))[1])
