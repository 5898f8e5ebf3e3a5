"""What cameras that can be lost share: waiting, connecting again, telling a frozen or late one."""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture, Source

FIRST_DELAY = 0.5  # seconds before the first attempt to reconnect; doubles from there
LONGEST_DELAY = 10.0
TOO_LATE = 5.0  # seconds in which frames must have caught up before the camera is opened anew
STRIDE = 7  # every so many pixels are compared to see whether a picture is the same
DRIFT = 500e-6  # by how much a camera's clock may be slow


class AbsentError(SourceError):
    """A camera is not there now; it may come, so waiting for it makes sense."""


class Capture(Protocol):
    """An open device or connection."""

    ended: bool  # it has come to its regular end, as a finite pipeline does

    def read(self) -> Picture | None:
        """The next picture, or None when the capture is lost or has ended.

        A ``pts`` is a timestamp of the camera's own, by which late and frozen ones are told.
        """

    def release(self) -> None:
        """Free everything; called once."""


class Camera(Source):
    """A live capture that is opened again when it is lost.

    Attempts are ``options.reconnects`` in a row at most, with waits of 0.5, 1, 2 ... 10 seconds,
    each spread by half at random so that many devices do not return at the same moment. What the
    old capture held is freed before a new one is opened. A camera that is absent at the first
    opening is waited for in the same way where ``options.wait`` says so; any other failure of the
    first opening is raised at once.
    """

    def __init__(self, name: str, options: SourceOptions, *, patience: float) -> None:
        super().__init__(name, live=True, patience=patience)
        self._reconnects = options.reconnects
        self._attempt = 0
        self._why = ""
        self._frozen = FrozenWatch(options.frozen_after)
        self._lateness = Lateness(options.latency)
        self.scale = 1.0  # of the picture's sides, as ``shrink`` asked for
        self.size = (0, 0)  # height and width at scale 1, once a picture has come
        self._renew = False
        self._capture: Capture | None = None
        try:
            self._capture = self._open()
        except AbsentError as error:
            if not options.wait:
                raise
            self._why = str(error)
            self.say("absent", f"{error}; waiting for it")

    @abstractmethod
    def _open(self) -> Capture:
        """An opened capture; raises AbsentError or SourceError, with nothing left open."""

    def _next(self) -> Picture | None:
        while not self._cancelled.is_set():
            if self._renew:
                self._renew = False
                self._release()
                self._reopen()
            if self._capture is not None:
                picture = self._capture.read()
                if picture is not None and self._good(picture):
                    self._attempt = 0
                    if self.scale == 1.0:
                        self.size = picture.image.shape[0], picture.image.shape[1]
                    # A camera's own timeline begins anew at each opening: nothing to rely on.
                    return picture._replace(pts=None)
                if self._capture is not None:
                    if picture is not None or self._cancelled.is_set():
                        continue
                    if self._capture.ended:
                        return None
                    self._release()
            self._attempt += 1
            if self._attempt > self._reconnects:
                raise SourceError(self._given_up())
            longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._attempt - 1, 16))
            delay = longest * random.uniform(0.5, 1.5)
            self.say(
                "lost",
                f"{self.name} {'is not there' if self._index == 0 else 'was lost'}; attempt "
                f"{self._attempt} of {self._reconnects} to connect in {delay:.1f} s",
            )
            if self._cancelled.wait(delay):
                break
            self._reopen()
        return None

    def renew(self, scale: float) -> bool:
        """Open the camera anew with pictures of ``scale`` before the next read; for ``shrink``."""
        if self.size == (0, 0):
            return False  # nothing has come yet that could be too much
        if scale != self.scale:
            self.scale, self._renew = scale, True
        return True

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Width and height at the present scale, even as coders want them."""
        return max(16, round(width * self.scale / 2) * 2), max(
            16, round(height * self.scale / 2) * 2
        )

    def _good(self, picture: Picture) -> bool:
        """Whether a picture is one to give on; drops the capture where it is none to keep."""
        now = time.monotonic()
        if self._frozen.seen(picture, now):
            # Once only: a camera that shows the same after a new start may film a still picture.
            self.say(
                "frozen",
                f"{self.name} is frozen: the same picture for {self._frozen.limit:g} s; it is "
                "opened anew once",
            )
            self._release()
            return False
        lag = self._lateness.seen(picture, now)
        if lag is None:
            return True
        self.lost["late"] += 1
        if self._lateness.since is not None and now - self._lateness.since > TOO_LATE:
            self.say("late", f"{self.name} is {lag:.1f} s late and does not catch up; opened anew")
            self._release()
        return False

    def _reopen(self) -> None:
        try:
            self._capture = self._open()
        except SourceError as error:
            self._why = str(error)  # _next counts this attempt and says in the end what failed
            return
        self.say("open", f"{self.name} is open again")

    def _given_up(self) -> str:
        attempts = f"{self._reconnects} attempts"
        if self._index == 0 and self._why:
            return f"{self._why}; given up after {attempts}"
        why = f" (the last one: {self._why})" if self._why else ""
        return (
            f"{self.name} was lost and did not come back in {attempts}{why}; "
            "look at the camera and its cable or network, then start again"
        )

    def _release(self) -> None:
        self._lateness.restart()
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()


class FrozenWatch:
    """Notices a camera that goes on sending the same picture, or one timestamp for ever.

    Real sensors are noisy, so that pictures never repeat to the last bit; but a coder may repeat
    one for some seconds, which is why ``limit`` should be tens of seconds. Said once until
    something moves again.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._sample: npt.NDArray[np.uint8] | None = None
        self._pts: float | None = None
        self._moved = 0.0
        self._ticked = 0.0
        self._said = False

    def seen(self, picture: Picture, now: float) -> bool:
        """True at the moment when the camera is found frozen."""
        sample = picture.image[::STRIDE, ::STRIDE]
        if self._sample is None or not np.array_equal(sample, self._sample):
            self._sample, self._moved, self._said = sample.copy(), now, False
        if picture.pts is None or picture.pts != self._pts:
            self._pts, self._ticked = picture.pts, now
        if self._said or now - min(self._moved, self._ticked) < self.limit:
            return False
        self._said = True
        return True


class Lateness:
    """How far frames lag behind, by their own timestamps.

    The quickest frame since the connection began is taken to be on time, with an allowance for a
    camera's clock that is fast or slow. A growing lag means that decoding or the network cannot
    keep up.
    """

    def __init__(self, bound: float) -> None:
        self.since: float | None = None  # when frames began to be late
        self._bound = bound
        self._fastest: float | None = None  # least arrival less timestamp
        self._last = 0.0

    def restart(self) -> None:
        """Forget everything: a new connection has a new timeline."""
        self.since = self._fastest = None

    def seen(self, picture: Picture, now: float) -> float | None:
        """Seconds by which a picture is late, where that is beyond the bound."""
        if picture.pts is None:
            return None
        offset = now - picture.pts
        if self._fastest is None:
            self._fastest = offset
        else:
            self._fastest = min(offset, self._fastest + (now - self._last) * DRIFT)
        self._last = now
        lag = offset - self._fastest
        if lag <= self._bound:
            self.since = None
            return None
        if self.since is None:
            self.since = now
        return lag
