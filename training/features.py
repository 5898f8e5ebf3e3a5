"""A cache of the frozen half of an encoder for several random views of every photograph.

With a convolutional encoder the frozen half holds nine tenths of its work and keeps its published
weights, so it runs once a view; the rest and the decoder then train at a tenth of the cost. Where
nothing is frozen, the cache holds the views' pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from edgecap.runtime.errors import DataError
from edgecap.runtime.image import resize_image
from edgecap.training.augment import AugmentOptions, random_view
from edgecap.training.data import CaptionedImage, load_pixels
from edgecap.training.distributed import World
from edgecap.training.errors import TrainingError
from edgecap.training.models.encoders.base import Frozen
from edgecap.training.progress import track

BATCH = 32

# uint8 [B, S, S, 3] RGB -> tensors [B, ...]
FrozenHalf = Callable[[torch.Tensor], Frozen]


class Features(Protocol):
    """What training takes its pictures from."""

    views: int
    size: int

    def batch(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Frozen:
        """Tensors [B, ...] of (image, view) pairs."""


class FeatureCache:
    """Memory-mapped views: V times a tuple of arrays [N, ...], floats in float16.

    View 0 is the plain squashed photograph; the others are random.
    """

    def __init__(self, folder: Path, images: int, views: int) -> None:
        self.views, self.size = views, images
        self._arrays = [
            [np.load(path, mmap_mode="r") for path in _view_files(folder, view)]
            for view in range(views)
        ]

    def batch(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Frozen:
        """Gather (image, view) pairs, floats widened to float32."""
        pairs = list(zip(images.tolist(), views.tolist(), strict=True))
        parts = range(len(self._arrays[0]))
        gathered = [
            torch.from_numpy(np.stack([self._arrays[v][p][i] for i, v in pairs])) for p in parts
        ]
        return tuple(part.float() if part.is_floating_point() else part for part in gathered)


def build_cache(
    folder: Path,
    images: Sequence[CaptionedImage],
    frozen: FrozenHalf,
    *,
    image_size: int,
    source: str,
    views: int,
    seed: int,
    augment: AugmentOptions,
    world: World | None = None,
    left_out: Collection[int] = (),
) -> FeatureCache:
    """Compute what is missing of the cache; an interrupted run goes on at the next whole view.

    source : what ``frozen`` is, in words; a folder made by another one is refused
    world : processes that share the views among them; ``frozen`` gets pictures on its device
    left_out : places of pictures that are not read; their features are zeros

    Raises DataError for a folder of other pictures, TrainingError where the disk is full.
    """
    world = world or World()
    named = [[_named(image) for image in images], seed, asdict(augment), image_size, source]
    key = hashlib.sha256(json.dumps(named).encode()).hexdigest()
    stamp = folder / "key.txt"
    with world.first_first():
        folder.mkdir(parents=True, exist_ok=True)
        if stamp.exists() and stamp.read_text() != key:
            raise DataError(
                f"{folder} holds views of other pictures, options or encoders; name another folder"
            )
        stamp.write_text(key)
    empty, skipped = np.zeros((image_size, image_size, 3), np.uint8), set(left_out)

    def pixels(index: int, view: int) -> npt.NDArray[np.uint8]:
        if index in skipped:
            return empty
        return picture_view(images[index], index, view, image_size, augment, seed)

    for view in range(world.rank, views, world.size):
        if not _view_files(folder, view):
            try:
                _build_view(folder, view, pixels, len(images), frozen, world)
            except OSError as error:
                raise TrainingError(
                    f"{folder} could not be written ({error}); make room and run the same again"
                ) from None
    world.wait()
    return FeatureCache(folder, len(images), views)


def _named(image: CaptionedImage) -> str:
    """What a picture is called in the key: its file, and what part of the file it is."""
    place = f"@{image.span[0]}" if image.span else ""
    return f"{image.path.name}{place}{list(image.box) if image.box else ''}"


def _view_files(folder: Path, view: int) -> list[Path]:
    return sorted((folder / f"view-{view}").glob("*.npy"))


def picture_view(
    image: CaptionedImage, index: int, view: int, size: int, augment: AugmentOptions, seed: int
) -> npt.NDArray[np.uint8]:
    """View number ``view`` of a picture at place ``index``, uint8 [S, S, 3]; 0 is the plain one."""
    pixels = load_pixels(image)
    if view == 0:
        return resize_image(pixels, size)
    return random_view(pixels, size, np.random.default_rng((seed, view, index)), augment)


def _build_view(
    folder: Path,
    view: int,
    pixels_of: Callable[[int, int], npt.NDArray[np.uint8]],
    count: int,
    frozen: FrozenHalf,
    world: World,
) -> None:
    part = folder / f"view-{view}.part"
    part.mkdir(exist_ok=True)
    arrays: list[np.memmap] = []
    for start in track(range(0, count, BATCH), f"view {view}", quiet=not world.first):
        chosen = range(start, min(start + BATCH, count))
        pixels = torch.from_numpy(np.stack([pixels_of(i, view) for i in chosen])).to(world.device)
        with torch.inference_mode(), torch.autocast(world.device.type, torch.bfloat16):
            found = [value.cpu() for value in frozen(pixels)]
        values = [v.half().numpy() if v.is_floating_point() else v.numpy() for v in found]
        if not arrays:
            arrays = [_reserve(part / f"{i}.npy", count, v) for i, v in enumerate(values)]
        for array, value in zip(arrays, values, strict=True):
            array[start : start + len(value)] = value
    for array in arrays:
        array.flush()
    os.replace(part, folder / f"view-{view}")


def _reserve(path: Path, count: int, like: np.ndarray) -> np.memmap:
    array = np.lib.format.open_memmap(path, "w+", like.dtype, (count, *like.shape[1:]))
    # A full disk is an error here; later, it would end the process at a write to memory.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array
