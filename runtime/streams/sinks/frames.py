"""What sinks that show pictures share."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sinks.base import SinkGone
from edgecap.runtime.streams.sinks.overlay import draw_caption
from edgecap.runtime.streams.told import Told, as_told

AHEAD = 16  # frames that wait at most to be drawn
GRACE = 0.25  # seconds that an event may take through the sink's queue


@runtime_checkable
class Watcher(Protocol):
    """A sink that wants the frames, too: a stream shows it each frame that its gate decided on."""

    def see(self, frame: Frame, passed: bool) -> None:
        """Take a frame; ``passed``: it goes on to the captioner. Must be quick.

        Its event, if there will be one, has been given to the sink's queue before the next frame.
        """


class FrameSink(ABC):
    """Draws each frame with the caption that holds for it, in a thread of its own.

    A frame that passed the gate waits for its caption; those behind it carry it on until the next.
    It may never come (a change that the encoder did not see, a caption that a profile does not tell
    again): then the frame keeps the caption before.
    At most 16 frames wait: a ``patient`` sink (no live source) then makes the stream wait, any
    other gives up the oldest and counts it in ``dropped``.

    A new kind is a subclass with ``_show`` and ``_end``.
    """

    def __init__(self, name: str, *, patient: bool = False) -> None:
        self.name = name
        self.dropped = 0
        self._patient = patient
        self._frames: deque[tuple[Frame, bool]] = deque()
        self._captions: dict[int, Told] = {}
        self._current: Told | None = None
        self._changed = threading.Condition()
        self._closing = False
        self._error: BaseException | None = None
        self._told_of_error = False
        self._start: float | None = None
        self._thread = threading.Thread(target=self._work, name=f"draws {name}", daemon=True)
        self._thread.start()

    def see(self, frame: Frame, passed: bool) -> None:
        """Queue a frame to be drawn."""
        with self._changed:
            while self._patient and len(self._frames) >= AHEAD and not self._over():
                self._changed.wait()
            if self._over():
                return
            if len(self._frames) >= AHEAD:
                self._frames.popleft()
                self.dropped += 1
            self._frames.append((frame, passed))
            self._changed.notify_all()

    def write(self, event: Event) -> None:
        """Take the caption of a frame."""
        with self._changed:
            if self._error is not None:
                if self._told_of_error:
                    raise SinkGone
                self._told_of_error = True
                raise self._error
            self._captions[event.frame] = as_told(event)
            while len(self._captions) > 2 * AHEAD:  # their frames were given up
                del self._captions[min(self._captions)]
            self._changed.notify_all()

    def close(self) -> None:
        """Draw what waits and end the output; raises what the drawing raised, if not told yet."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        told = self._told_of_error or isinstance(self._error, SinkGone)
        if self._error is not None and not told:
            raise self._error

    def _over(self) -> bool:
        return self._closing or self._error is not None

    def _work(self) -> None:
        try:
            try:
                while (frame := self._next()) is not None:
                    seconds = self._seconds(frame)
                    self._show(draw_caption(frame.image, self._current), seconds)
            finally:
                self._end()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._frames.clear()
                self._changed.notify_all()

    def _next(self) -> Frame | None:
        """The next frame, when the caption that holds for it is known; None at the end."""
        with self._changed:
            while not self._frames and not self._closing:
                self._changed.wait()
            if not self._frames:
                return None
            frame, passed = self._frames.popleft()
            self._changed.notify_all()
            done: float | None = None  # when the next frame came: this one's event is on its way
            while passed and frame.index not in self._captions and not self._closing:
                if done is None and self._frames:
                    done = time.monotonic()
                left = None if done is None else done + GRACE - time.monotonic()
                if left is not None and left <= 0.0:
                    break
                self._changed.wait(left)
            for index in sorted(index for index in self._captions if index <= frame.index):
                self._current = self._captions.pop(index)
            return frame

    def _seconds(self, frame: Frame) -> float:
        self._start = frame.seconds if self._start is None else self._start
        return frame.seconds - self._start

    @abstractmethod
    def _show(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        """Put out one picture, uint8 [H, W, 3] BGR, ``seconds`` after the first."""

    @abstractmethod
    def _end(self) -> None:
        """Finish the output and free what it holds; called once, also after an error."""
