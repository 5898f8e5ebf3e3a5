"""A frame, and the slot in which the newest one waits."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Header(NamedTuple):
    """Header of the ROS 2 message that brought a frame, to the nanosecond.

    sec, nanosec, frame_id : as in ``std_msgs/Header``
    logged : nanoseconds since 1970 at which a bag's recorder took the message; None: of no bag
    """

    sec: int
    nanosec: int
    frame_id: str
    logged: int | None = None


class Approach(NamedTuple):
    """Something that comes nearer.

    what : how it is told, such as "someone"
    seconds : until it is reached if it keeps its speed
    box : left, top, right, bottom as shares of the picture
    """

    what: str
    seconds: float
    box: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a source.

    image : uint8 [H, W, 3], in the order that ``channels`` names
    index : number of this frame in its source, from 0; goes on counting when a file is looped
    captured_at : wall clock when the frame came, seconds since 1970 (UTC)
    monotonic : the same moment on ``time.monotonic``, for ages and latencies
    pts : position on the file's own timeline in seconds, growing over loops; None where the
        source has no timeline (pictures) or none to rely on (cameras)
    source : the source's name, credentials masked; in a folder the picture's own path
    header : of the ROS 2 message that brought it, if one did
    nearer : what a detector beside the captioner sees coming nearer
    """

    image: npt.NDArray[np.uint8]
    index: int
    captured_at: float
    monotonic: float
    pts: float | None
    source: str
    channels: str = "BGR"
    header: Header | None = None
    nearer: tuple[Approach, ...] = ()

    @property
    def seconds(self) -> float:
        """The clock that gates measure with: ``pts``, or ``monotonic`` where there is none."""
        return self.monotonic if self.pts is None else self.pts


class NewestSlot:
    """Holds at most one frame between a reader thread and the caption thread.

    A newer frame overwrites the one that waits, so that a slow captioner always sees the present
    and memory stays constant. Every overwritten frame is counted.
    """

    def __init__(self, wake: threading.Event | None = None) -> None:
        """``wake`` is set at every ``put`` and ``close``: one thread can wait for several slots."""
        self._changed = threading.Condition()
        self._wake = wake if wake is not None else threading.Event()
        self._frame: Frame | None = None
        self._closed = False
        self._error: BaseException | None = None
        self.received = 0  # frames put
        self.stale = 0  # frames overwritten before anyone took them

    def put(self, frame: Frame) -> None:
        """Leave a frame; it replaces the one that waits."""
        with self._changed:
            self.received += 1
            if self._frame is not None:
                self.stale += 1
            self._frame = frame
            self._changed.notify()
        self._wake.set()

    def close(self, error: BaseException | None = None) -> None:
        """Say that no frame will follow, or why: ``error`` is raised by ``take``."""
        with self._changed:
            self._closed = True
            self._error = error
            self._changed.notify()
        self._wake.set()

    def take(self, timeout: float) -> Frame | None:
        """Take the newest frame, waiting up to ``timeout`` seconds for one.

        None on a timeout, or at the end (``ended``). A waiting frame is given before the end or
        the error that followed it.
        """
        with self._changed:
            if self._frame is None and not self._closed:
                self._changed.wait(timeout)
            frame, self._frame = self._frame, None
            if frame is None and self._error is not None:
                raise self._error
            return frame

    @property
    def ended(self) -> bool:
        """Closed, and nothing waits."""
        with self._changed:
            return self._closed and self._frame is None

    @property
    def waiting(self) -> int:
        """Frames in the slot: 0 or 1."""
        with self._changed:
            return int(self._frame is not None)
