"""What may be changed while a stream runs: captions on or off, their pace, "describe now"."""

from __future__ import annotations

import math
import threading
from typing import Protocol, runtime_checkable

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.gate import Decision, Gate


class Controls:
    """The switches of one stream. Any thread may set them, the captioning thread reads them."""

    def __init__(self, *, captions: bool = True, min_interval: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._asked = False
        self.captions = captions
        self._min_interval = 0.0
        self.min_interval = min_interval

    @property
    def min_interval(self) -> float:
        """Seconds between two captions; 0: as the gate decides."""
        return self._min_interval

    @min_interval.setter
    def min_interval(self, seconds: float) -> None:
        if not 0.0 <= seconds < math.inf:
            raise OptionsError(f"min_interval is {seconds!r}; give seconds from 0")
        self._min_interval = float(seconds)

    def describe_now(self) -> None:
        """Have the next frame captioned whatever the gate says, also while captions are off."""
        with self._lock:
            self._asked = True

    def take_asked(self) -> bool:
        """Whether somebody asked since the last call."""
        with self._lock:
            asked, self._asked = self._asked, False
            return asked


@runtime_checkable
class Commanded(Protocol):
    """A sink through which somebody may command the stream."""

    def control(self, controls: Controls) -> None:
        """Let commands act on ``controls``."""


class ControlledGate:
    """A gate that obeys ``controls`` before it asks the inner one.

    Reasons beside the inner gate's: asked (passed), off and early (skipped).
    """

    def __init__(self, gate: Gate, controls: Controls) -> None:
        self._gate = gate
        self._controls = controls
        self._last: float | None = None

    def decide(self, frame: Frame) -> Decision:
        """Pass or skip the frame."""
        if self._controls.take_asked():
            decision = self._gate.decide(frame)  # so that it knows the frame, if it would pass it
            if not decision.passed:
                decision = Decision(True, "asked")
        elif not self._controls.captions:
            return Decision(False, "off")
        elif self._last is not None and (
            0.0 <= frame.seconds - self._last < self._controls.min_interval
        ):
            return Decision(False, "early")
        else:
            decision = self._gate.decide(frame)
        if decision.passed:
            self._last = frame.seconds
        return decision
