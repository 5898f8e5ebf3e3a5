"""Pictures that are drawn, to try a stream without a camera."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture, Source, mask_credentials

PATTERNS = ("moving", "static", "flashing")
LIMITS = {"width": (16, 8192), "height": (16, 8192), "fps": (1, 1000), "frames": (0, 2**62)}


class GeneratedSource(Source):
    """``test://moving|static|flashing[?width=640&height=480&fps=25&frames=0]``.

    moving : a bright square goes round over a gradient, once in four seconds
    static : the gradient alone, the same in every frame
    flashing : the gradient and its negative in turn, one second each

    ``frames`` = 0 has no end.
    """

    def __init__(self, uri: str, options: SourceOptions) -> None:
        name = mask_credentials(uri)
        super().__init__(name, live=options.realtime)
        self._pattern, settings = _parse(name)
        self._fps = settings["fps"]
        self._frames = settings["frames"]
        self._width, self._height = settings["width"], settings["height"]
        self._drawn = 0
        self._started: float | None = None
        across = np.linspace(0, 255, self._width)
        down = np.linspace(0, 255, self._height)
        ground = np.empty((self._height, self._width, 3), np.uint8)
        ground[..., 0] = across
        ground[..., 1] = down[:, None]
        ground[..., 2] = 96
        self._ground = ground

    def _next(self) -> Picture | None:
        if self._frames and self._drawn >= self._frames:
            return None
        pts = self._drawn / self._fps
        image = self._draw(pts)
        self._drawn += 1
        if self.live:
            now = time.monotonic()
            if self._started is None:
                self._started = now - pts
            self._cancelled.wait(max(0.0, self._started + pts - now))
        return Picture(image, pts)

    def _draw(self, seconds: float) -> npt.NDArray[np.uint8]:
        image: npt.NDArray[np.uint8] = self._ground.copy()
        if self._pattern == "flashing" and int(seconds) % 2:
            image = ~image
        elif self._pattern == "moving":
            side = max(4, min(self._width, self._height) // 3)
            angle = seconds * np.pi / 2
            top = int((self._height - side) * (0.5 + 0.5 * np.sin(angle)))
            left = int((self._width - side) * (0.5 + 0.5 * np.cos(angle)))
            image[top : top + side, left : left + side] = (255, 255, 255)
        return image

    def _release(self) -> None:
        """Nothing is held."""


def _parse(uri: str) -> tuple[str, dict[str, int]]:
    parts = urlsplit(uri)
    pattern = parts.netloc
    if pattern not in PATTERNS:
        raise SourceError(f"{uri} names no test pattern; give test:// and {', '.join(PATTERNS)}")
    settings = {"width": 640, "height": 480, "fps": 25, "frames": 0}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        low, high = LIMITS.get(name, (0, -1))
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            known = ", ".join(f"{key} {low} to {high}" for key, (low, high) in LIMITS.items())
            raise SourceError(f"{uri} sets {name} to {text!r}; whole numbers can be set: {known}")
        settings[name] = int(text)
    return pattern, settings
