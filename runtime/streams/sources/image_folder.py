"""A picture, or a folder of pictures sorted by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecap.runtime.errors import ImageError, SourceError
from edgecap.runtime.image import load_image
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import LOG, Picture, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class ImageFolder(Source):
    """Pictures one after another, each when it is asked for: none is ever dropped as stale.

    Each frame's source is its picture's path. In a folder, a picture that cannot be read is left
    out, counted and named in a warning; where none can be read, or the one picture given cannot,
    that is a SourceError.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        super().__init__(str(path), live=False, stills=True)
        self._path = path
        self._loop = options.loop
        self._paths = _pictures(path)
        self._place = 0
        self._given = False

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
            self._given = True
            bgr = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)
            return Picture(bgr, name=str(path))
        return None

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
