"""Gates decide which frames are worth a caption."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.options import StreamOptions

CELLS = 32  # the thumbnail is CELLS x CELLS
LEVELS = 10  # grey levels (of 255) by which a cell must differ: above sensor and codec noise
SAMPLED = (4, 2)  # columns and rows of pixels that are averaged into a cell: a row costs more


@dataclass(frozen=True)
class Decision:
    """Whether a frame is captioned, and why or why not.

    Reasons to pass: first, changed, refresh, interval, always, asked, nearer. To skip: early,
    unchanged, same (a change that the encoder's features do not see), off.
    """

    passed: bool
    reason: str


class Gate(Protocol):
    """Looks at every frame that reaches the captioner's side.

    A frame that passes is captioned: the gate may keep what it needs of it to compare the next
    ones with. One gate serves one stream and is called from one thread.
    """

    def decide(self, frame: Frame) -> Decision:
        """Pass the frame on or skip it."""


class AlwaysGate:
    """Passes every frame, ``min_interval`` seconds apart or more."""

    def __init__(self, min_interval: float = 0.0) -> None:
        self._min_interval = min_interval
        self._last: float | None = None

    def decide(self, frame: Frame) -> Decision:
        """Pass the frame unless it comes too early."""
        first = self._last is None
        if self._last is not None and 0.0 <= frame.seconds - self._last < self._min_interval:
            return Decision(False, "early")
        self._last = frame.seconds
        if first:
            return Decision(True, "first")
        return Decision(True, "interval" if self._min_interval else "always")


class ThumbnailGate:
    """Passes frames that differ from the last captioned one.

    Both are shrunk to 32 x 32 cells; a frame has changed where more than ``threshold`` of the
    cells differ by over 10 of 255 levels in any channel. Counting cells finds a small thing that
    moves, which a mean difference over the picture would miss. An unchanged scene passes again
    after ``max_age`` seconds; nothing but the first frame passes earlier than ``min_interval``.
    """

    def __init__(
        self, threshold: float = 0.05, min_interval: float = 0.0, max_age: float = 60.0
    ) -> None:
        self._threshold = threshold
        self._min_interval = min_interval
        self._max_age = max_age
        self._last = 0.0
        self._seen: npt.NDArray[np.int16] | None = None

    def decide(self, frame: Frame) -> Decision:
        """Compare the frame with the last one that passed."""
        if self._seen is None:
            return self._pass(frame, thumbnail(frame.image), "first")
        elapsed = frame.seconds - self._last
        if elapsed < 0.0:  # the source's timeline began anew
            self._last, elapsed = frame.seconds, 0.0
        if elapsed < self._min_interval:
            return Decision(False, "early")
        small = thumbnail(frame.image)
        if changed_share(small, self._seen) > self._threshold:
            return self._pass(frame, small, "changed")
        if elapsed >= self._max_age:
            return self._pass(frame, small, "refresh")
        return Decision(False, "unchanged")

    def _pass(self, frame: Frame, small: npt.NDArray[np.int16], reason: str) -> Decision:
        self._last, self._seen = frame.seconds, small
        return Decision(True, reason)


class FeatureGate(ThumbnailGate):
    """A thumbnail gate that asks the encoder before it lets a change pass.

    A frame whose thumbnail differs from the last frame that was looked at is encoded; the cosine
    of its features with those of the last captioned frame then decides in ``confirm``. Hysteresis:
    a scene is the same from ``same`` on, and has changed again only under ``changed``. Light that
    flickers or a codec that pumps costs an encoding, not a caption.
    """

    def __init__(
        self,
        threshold: float = 0.05,
        min_interval: float = 0.0,
        max_age: float = 60.0,
        same: float = 0.97,
        changed: float = 0.95,
    ) -> None:
        super().__init__(threshold, min_interval, max_age)
        self._same, self._changed = same, changed
        self._quiet = False
        self._captioned: npt.NDArray[np.float32] | None = None
        self._before = 0.0

    def confirm(
        self, frame: Frame, decision: Decision, features: npt.NDArray[np.float32]
    ) -> tuple[Decision, float | None]:
        """The last word on a frame that ``decide`` passed, and its cosine with the last caption's.

        features : float32 [F], unit length
        """
        last = self._captioned
        cosine = None if last is None or last.shape != features.shape else float(features @ last)
        if decision.reason == "changed" and cosine is not None:
            if not self._quiet:
                self._quiet = cosine >= self._same
            elif cosine < self._changed:
                self._quiet = False
            if self._quiet:
                self._last = self._before  # no caption: its age goes on
                return Decision(False, "same"), cosine
        self._captioned = np.array(features, np.float32)
        return decision, cosine

    def _pass(self, frame: Frame, small: npt.NDArray[np.int16], reason: str) -> Decision:
        self._before = self._last
        return super()._pass(frame, small, reason)


def make_gate(options: StreamOptions, stills: bool, features: bool = False) -> Gate:
    """The gate that ``options`` name.

    ``stills`` says that the source gives separate pictures: they have no times that
    ``min_interval`` could measure, and all pass unless a thumbnail gate is asked for.
    ``features`` says that the captioner's encoder gives features to compare.
    """
    min_interval = 0.0 if stills else options.min_interval
    if options.gate == "none" or (options.gate == "auto" and stills):
        return AlwaysGate(min_interval)
    if options.gate == "auto" and features:
        return FeatureGate(
            options.threshold, min_interval, options.max_age, options.same, options.changed
        )
    return ThumbnailGate(options.threshold, min_interval, options.max_age)


def thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Shrink uint8 [H, W, 3] to int16 [32, 32, 3], ready to be subtracted."""
    import cv2

    # Single pixels first: enough to average noise away, and most of the picture is never read.
    width, height = (CELLS * each for each in SAMPLED)
    some = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(some, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.int16)


def changed_share(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> float:
    """Share (0 to 1) of the cells of two thumbnails that differ in any channel."""
    return float((np.abs(one - other).max(axis=2) > LEVELS).mean())
