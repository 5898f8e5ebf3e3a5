"""Privacy zones: parts of the picture that nothing after the camera ever sees; covered cameras."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.frames import Frame

GREY = 128  # of masked pixels: neither light nor shadow to the model


@dataclass(frozen=True)
class Zone:
    """A polygon. ``points``: three or more (x, y), shares of the picture's width and height."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        inside = all(0.0 <= share <= 1.0 for point in self.points for share in point)
        if len(self.points) < 3 or not inside:
            raise OptionsError(
                f"{list(map(list, self.points))} is no zone; give three or more points [x, y], "
                "each a share of the picture from 0 to 1"
            )


def mask(image: npt.NDArray[np.uint8], zones: Sequence[Zone]) -> npt.NDArray[np.uint8]:
    """A copy of ``image``, uint8 [H, W, 3], with the zones filled with grey, edges included."""
    import cv2

    masked = np.array(image)
    height, width = image.shape[:2]
    for zone in zones:
        # Pixels that a zone only touches are masked, too.
        corners = np.array(zone.points) * (width, height)
        whole = np.rint(corners).astype(np.int32)
        cv2.fillPoly(masked, [whole], (GREY, GREY, GREY))
        cv2.polylines(masked, [whole], True, (GREY, GREY, GREY), thickness=3)
    return masked


class Mask:
    """Changes frames so that nothing after it sees the zones: gate, encoder, sinks, snapshots."""

    def __init__(self, zones: Sequence[Zone]) -> None:
        self._zones = tuple(zones)

    def __call__(self, frame: Frame) -> Frame:
        """The frame with its zones masked; itself where there are none."""
        if not self._zones:
            return frame
        return replace(frame, image=mask(frame.image, self._zones))


class Blocked:
    """Tells a camera that sees nothing: covered, dark, or a picture without any contrast.

    say : called with (kind, text), "blocked" when it begins, "clear" when it ends
    after : seconds for which the picture must be empty
    contrast : grey levels of standard deviation under which a picture is empty
    """

    def __init__(
        self, say: Callable[[str, str], None], *, after: float = 1.0, contrast: float = 4.0
    ) -> None:
        self._say = say
        self._after, self._contrast = after, contrast
        self._since: float | None = None
        self._blocked = False

    def look(self, frame: Frame) -> None:
        """Look at one frame; cheap: a thumbnail and its deviation."""
        from edgecap.runtime.streams.gate import thumbnail

        level = float(thumbnail(frame.image).mean(axis=2).std())
        if level >= self._contrast:
            if self._blocked:
                self._say("clear", f"{frame.source} sees again")
            self._since, self._blocked = None, False
            return
        self._since = frame.seconds if self._since is None else min(self._since, frame.seconds)
        if not self._blocked and frame.seconds - self._since >= self._after:
            self._blocked = True
            self._say("blocked", f"{frame.source} sees nothing: it is covered, dark or broken")
