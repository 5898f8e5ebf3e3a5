"""What every source is."""

from __future__ import annotations

import logging
import re
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edgecap.runtime.streams.frames import Frame, Header

LOG = logging.getLogger("edgecap.streams")
CLOSE_GRACE = 2.0  # seconds that close() waits beyond the read timeout for a read to return


class Picture(NamedTuple):
    """What ``_next`` gives.

    image : uint8 [H, W, 3] BGR
    pts : seconds on the source's own timeline
    name : where it is not the source's
    captured : moment of capture on ``time.monotonic``, where the source knows better than "now"
    header : of the ROS 2 message that brought it
    """

    image: npt.NDArray[np.uint8]
    pts: float | None = None
    name: str | None = None
    captured: float | None = None
    header: Header | None = None


class Source(ABC):
    """Gives frames one after another until it ends.

    A new kind is a new file with a subclass that writes ``_next`` and ``_release``.

    name : what the source is called in events, errors and logs, credentials masked
    live : frames come in their own time, whether anyone reads them or not; a stream then keeps the
        newest only. False: each read gives the next frame and none is lost
    stills : separate pictures, where comparing one with the last means nothing
    lost : pictures that the source had to leave out, by reason
    patience : seconds in which a read returns after ``cancel``
    listener : called with (kind, text) when something happens that a user should know, such as
        "lost", "open", "frozen"; a pipeline sets it

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
        self.listener: Callable[[str, str], None] | None = None
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
            now = time.monotonic()
            captured = now if picture.captured is None else min(picture.captured, now)
            frame = Frame(
                image=picture.image,
                index=self._index,
                captured_at=time.time() - (now - captured),
                monotonic=captured,
                pts=picture.pts,
                source=picture.name or self.name,
                header=picture.header,
            )
            self._index += 1
            return frame

    def say(self, kind: str, text: str) -> None:
        """Tell the log and the listener."""
        LOG.warning("%s", text)
        if self.listener is not None:
            self.listener(kind, text)

    def shrink(self, factor: float) -> bool:
        """Give pictures with sides ``factor`` (0 to 1) times their own from now on, if it can."""
        return False

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
