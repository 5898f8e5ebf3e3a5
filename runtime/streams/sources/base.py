"""What every source is, and what cameras that can be lost share."""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.options import SourceOptions

LOG = logging.getLogger("edgecap.streams")
FIRST_DELAY = 0.5  # seconds before the first attempt to reconnect; doubles from there
LONGEST_DELAY = 10.0
CLOSE_GRACE = 2.0  # seconds that close() waits beyond the read timeout for a read to return


class Picture(NamedTuple):
    """What ``_next`` gives: uint8 [H, W, 3] BGR, seconds, a name of its own if it has one."""

    image: npt.NDArray[np.uint8]
    pts: float | None = None
    name: str | None = None


class Source(ABC):
    """Gives frames one after another until it ends.

    A new kind is a new file with a subclass that writes ``_next`` and ``_release``.

    name : what the source is called in events, errors and logs, credentials masked
    live : frames come in their own time, whether anyone reads them or not; a stream then keeps the
        newest only. False: each read gives the next frame and none is lost
    stills : separate pictures, where comparing one with the last means nothing
    lost : pictures that the source had to leave out, by reason
    patience : seconds in which a read returns after ``cancel``

    ``read`` and ``close`` belong to one thread at a time; ``cancel`` to any.
    """

    def __init__(
        self, name: str, *, live: bool, stills: bool = False, patience: float = 0.0
    ) -> None:
        self.name = name
        self.live = live
        self.stills = stills
        self.lost: Counter[str] = Counter()
        self.patience = patience + CLOSE_GRACE
        self._index = 0
        self._cancelled = threading.Event()
        self._reading = threading.Lock()
        self._closed = False

    def read(self) -> Frame | None:
        """The next frame; None when the source has ended or was cancelled.

        Raises SourceError when the source breaks and cannot be had again.
        """
        with self._reading:
            picture = None if self._cancelled.is_set() else self._next()
            if picture is None:
                return None
            frame = Frame(
                image=picture.image,
                index=self._index,
                captured_at=time.time(),
                monotonic=time.monotonic(),
                pts=picture.pts,
                source=picture.name or self.name,
            )
            self._index += 1
            return frame

    def cancel(self) -> None:
        """Make reads return None from now on, one that is waiting included."""
        self._cancelled.set()

    def close(self) -> None:
        """Cancel and free the device, file or connection. May be called again."""
        self.cancel()
        # Releasing a capture under a read that has not returned would crash the process.
        if not self._reading.acquire(timeout=self.patience):
            LOG.warning("%s does not answer and is left open", self.name)
            return
        try:
            if not self._closed:
                self._closed = True
                self._release()
        finally:
            self._reading.release()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _next(self) -> Picture | None:
        """Read one picture, or None at the end."""

    @abstractmethod
    def _release(self) -> None:
        """Free what the source holds."""


class Camera(Source):
    """A live capture that is opened again when it is lost.

    Attempts are ``options.reconnects`` in a row at most, with waits of 0.5, 1, 2 ... 10 seconds,
    each spread by half at random so that many devices do not return at the same moment. What the
    old capture held is freed before a new one is opened. The first opening is not retried.
    """

    def __init__(self, name: str, options: SourceOptions, *, patience: float) -> None:
        super().__init__(name, live=True, patience=patience)
        self._reconnects = options.reconnects
        self._attempt = 0
        self._capture: Any = self._open()

    @abstractmethod
    def _open(self) -> Any:
        """An opened ``cv2.VideoCapture``; raises SourceError."""

    def _next(self) -> Picture | None:
        while not self._cancelled.is_set():
            if self._capture is not None:
                taken, image = self._capture.read()
                if taken and image is not None and image.size:
                    self._attempt = 0
                    return Picture(image)
                self._release()
            self._attempt += 1
            if self._attempt > self._reconnects:
                raise SourceError(
                    f"{self.name} was lost and did not come back in {self._reconnects} attempts; "
                    "look at the camera and its cable or network, then start again"
                )
            longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self._attempt - 1, 16))
            delay = longest * random.uniform(0.5, 1.5)
            LOG.warning(
                "%s was lost; attempt %d of %d to reconnect in %.1f s",
                self.name, self._attempt, self._reconnects, delay,
            )  # fmt: skip
            if self._cancelled.wait(delay):
                break
            self._reopen()
        return None

    def _reopen(self) -> None:
        try:
            self._capture = self._open()
        except SourceError:
            return  # _next counts this attempt and says in the end what was given up
        LOG.warning("%s is open again", self.name)

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


_USERINFO = re.compile(r"(:/+).*@", re.DOTALL)
_BARE_USERINFO = re.compile(r"^[^/]+:.*@", re.DOTALL)  # user:password@host, the scheme forgotten
_SECRET = re.compile(
    r"((?:user(?:name)?|login|pass(?:word|wd)?|pwd|token|secret|key|auth)=)[^&/?#;]*", re.IGNORECASE
)


def mask_credentials(uri: str) -> str:
    """The address with user, password and secret-looking parameters replaced by ``***``.

    Everything up to the last ``@`` goes, since passwords with ``@`` or ``/`` are often not escaped.
    """
    pattern, mask = (_USERINFO, r"\1***@") if ":/" in uri else (_BARE_USERINFO, "***@")
    return _SECRET.sub(r"\1***", pattern.sub(mask, uri))
