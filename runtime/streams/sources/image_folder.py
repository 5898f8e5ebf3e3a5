"""A picture, a folder of pictures sorted by name, or those that a pattern names."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from edgecap.runtime.errors import ImageError, SourceError
from edgecap.runtime.image import load_image
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import LOG, Picture, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class ImageFolder(Source):
    """Pictures one after another, each when it is asked for: none is ever dropped as stale.

    With ``options.rate`` they come at that rate instead, whether anyone asks or not, and are no
    longer separate pictures but a video. Each frame's source is its picture's path. In a folder,
    a picture that cannot be read is left out, counted and named in a warning; where none can be
    read, or the one picture given cannot, that is a SourceError.
    """

    def __init__(self, path: Path, options: SourceOptions, paths: list[Path] | None = None) -> None:
        paced = options.rate is not None
        super().__init__(str(path), live=paced and options.realtime, stills=not paced)
        self._path = path
        self._loop = options.loop
        self._paths = _pictures(path) if paths is None else paths
        self._place = 0
        self._given = 0
        self._period = 0.0 if options.rate is None else 1.0 / options.rate
        self._started = 0.0

    def _next(self) -> Picture | None:
        import cv2

        while not self._cancelled.is_set():
            if self._place == len(self._paths):
                if not self._given:
                    raise SourceError(f"{self._path} holds no picture that can be read")
                if not self._loop:
                    return None
                self._place = 0
            path = self._paths[self._place]
            self._place += 1
            try:
                rgb = load_image(path)
            except ImageError as error:
                if path == self._path:
                    raise SourceError(str(error)) from error
                self.lost["unreadable"] += 1
                LOG.warning("left out: %s", error)
                continue
            bgr = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)
            return Picture(bgr, self._pace(), str(path))
        return None

    def _pace(self) -> float | None:
        """Count a picture; where there is a rate, wait until it is due and give its time."""
        if not self._given:
            self._started = time.monotonic()
        place, self._given = self._given * self._period, self._given + 1
        if not self._period:
            return None
        if self.live:
            self._cancelled.wait(max(0.0, self._started + place - time.monotonic()))
        return place

    def _release(self) -> None:
        self._paths = []


def is_picture(path: Path) -> bool:
    """Whether a file's name says that it is a picture."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _pictures(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(entry for entry in path.iterdir() if is_picture(entry) and entry.is_file())
    if not found:
        kinds = " ".join(SUFFIXES)
        raise SourceError(f"{path} holds no pictures; give a folder with files of {kinds}")
    return found
