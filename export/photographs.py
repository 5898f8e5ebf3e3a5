"""Real photographs that an export calibrates with and is judged on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import DataError, EdgeCapError
from edgecap.training.data import CaptionedImage, load_pixels, open_dataset
from edgecap.training.data.files import require_folder
from edgecap.training.progress import track

FEWEST = 16  # below it activation ranges are chance
ADVISED = 100


@dataclass(frozen=True)
class Photographs:
    """Pictures by path, with people's captions where the place they come from has them.

    name : what they are called in reports
    sha256 : of the files' contents, in their order
    """

    name: str
    images: tuple[CaptionedImage, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def captioned(self) -> bool:
        """Whether every picture has captions to compare with."""
        return all(image.captions for image in self.images)

    def pixels(self, count: int | None = None) -> list[npt.NDArray[np.uint8]]:
        """uint8 RGB [H, W, 3] of the first ``count``."""
        return [load_pixels(image) for image in self.images[:count]]


def read_photographs(place: str, count: int, seed: int = 0) -> Photographs:
    """``count`` photographs of a place, drawn by ``seed``; all of them if it has fewer.

    place : a folder of pictures, or NAME:FOLDER=SPLIT for a captioned data set

    Raises ``DataError`` for a place without pictures or with under 16 that can be read.
    """
    data, equals, split = place.rpartition("=")
    if equals and ":" in data:
        images = tuple(open_dataset(data, split).images)
        name = f"{Path(data.partition(':')[2]).name}/{split}"
    else:
        images, name = _folder(Path(place).expanduser()), Path(place).name
    order = np.random.default_rng(seed).permutation(len(images))
    return _choose(name, [images[i] for i in order], count)


def digest(images: Sequence[CaptionedImage]) -> str:
    """SHA-256 of the pictures' pixels, in their order."""
    found = hashlib.sha256()
    for image in images:
        found.update(load_pixels(image).tobytes())
    return found.hexdigest()


def _choose(name: str, images: Sequence[CaptionedImage], count: int) -> Photographs:
    """The first ``count`` of ``images`` that can be read."""
    kept: list[CaptionedImage] = []
    for image in track(images, "photographs"):
        if len(kept) == count:
            break
        try:
            load_pixels(image)
        except EdgeCapError:
            continue
        kept.append(image)
    if len(kept) < FEWEST:
        raise DataError(
            f"{name} has {len(kept)} photographs that can be read; give {FEWEST} or more, "
            f"better {ADVISED}, of the kind the camera will see"
        )
    return Photographs(name, tuple(kept), digest(kept))


def _folder(folder: Path) -> tuple[CaptionedImage, ...]:
    from edgecap.runtime.streams.sources.image_folder import is_picture

    require_folder(folder)
    paths = sorted(path for path in folder.iterdir() if is_picture(path) and path.is_file())
    if not paths:
        raise DataError(
            f"{folder} holds no pictures; give a folder with at least {FEWEST} photographs"
        )
    return tuple(CaptionedImage(path.name, path, ()) for path in paths)
