"""Privacy zones: parts of the picture that nothing after the camera ever sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.sources.base import Source

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


class MaskedSource:
    """A source whose frames are masked before anyone sees them: gate, encoder, sinks, snapshots.

    All else is the inner source's. Typed as a ``Source`` by ``masked``.
    """

    _source: Source
    _zones: tuple[Zone, ...]

    def __init__(self, source: Source, zones: Sequence[Zone]) -> None:
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_zones", tuple(zones))

    def read(self) -> Frame | None:
        """The next frame, masked."""
        frame = self._source.read()
        return None if frame is None else replace(frame, image=mask(frame.image, self._zones))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._source, name, value)

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def __enter__(self) -> MaskedSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._source.close()


def masked(source: Source, zones: Sequence[Zone]) -> Source:
    """``source`` behind ``zones``; itself where there are none."""
    if not zones:
        return source
    behind: Any = MaskedSource(source, zones)
    return behind  # type: ignore[no-any-return]


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

    def see(self, frame: Frame, passed: bool) -> None:
        """Look at a frame that the gate looked at."""
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

    def skip(self, index: int) -> None:
        """A frame that was not captioned after all is no different here."""
