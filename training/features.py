"""A cache of the frozen half of an encoder for several random views of every photograph.

With a convolutional encoder the frozen half holds nine tenths of its work and keeps its published
weights, so it runs once a view; the rest and the decoder then train at a tenth of the cost. Where
nothing is frozen, the cache holds the views' pixels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgecap.runtime.errors import DataError
from edgecap.runtime.image import load_image, resize_image
from edgecap.training.augment import AugmentOptions, random_view
from edgecap.training.models.encoders.base import Frozen
from edgecap.training.progress import track

BATCH = 32

# uint8 [B, S, S, 3] RGB -> tensors [B, ...]
FrozenHalf = Callable[[torch.Tensor], Frozen]


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
    paths: Sequence[Path],
    frozen: FrozenHalf,
    *,
    image_size: int,
    source: str,
    views: int,
    seed: int,
    augment: AugmentOptions,
) -> FeatureCache:
    """Compute what is missing of the cache; an interrupted run goes on at the next whole view.

    source : what ``frozen`` is, in words; a folder made by another one is refused
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = [[p.name for p in paths], seed, asdict(augment), image_size, source]
    key = hashlib.sha256(json.dumps(named).encode()).hexdigest()
    stamp = folder / "key.txt"
    if stamp.exists() and stamp.read_text() != key:
        raise DataError(
            f"{folder} holds views of other pictures, options or encoders; name another folder"
        )
    stamp.write_text(key)
    for view in range(views):
        if not _view_files(folder, view):
            _build_view(folder, paths, frozen, image_size, view, seed, augment)
    return FeatureCache(folder, len(paths), views)


def _view_files(folder: Path, view: int) -> list[Path]:
    return sorted((folder / f"view-{view}").glob("*.npy"))


def _build_view(
    folder: Path,
    paths: Sequence[Path],
    frozen: FrozenHalf,
    size: int,
    view: int,
    seed: int,
    augment: AugmentOptions,
) -> None:
    part = folder / f"view-{view}.part"
    part.mkdir(exist_ok=True)
    arrays: list[np.memmap] = []
    for start in track(range(0, len(paths), BATCH), f"view {view}"):
        batch = [
            _view_pixels(path, size, view, (seed, view, start + i), augment)
            for i, path in enumerate(paths[start : start + BATCH])
        ]
        pixels = torch.from_numpy(np.stack(batch))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = frozen(pixels)
        values = [v.half().numpy() if v.is_floating_point() else v.numpy() for v in found]
        if not arrays:
            arrays = [
                np.lib.format.open_memmap(
                    part / f"{i}.npy", "w+", value.dtype, (len(paths), *value.shape[1:])
                )
                for i, value in enumerate(values)
            ]
        for array, value in zip(arrays, values, strict=True):
            array[start : start + len(value)] = value
    for array in arrays:
        array.flush()
    os.replace(part, folder / f"view-{view}")


def _view_pixels(
    path: Path, size: int, view: int, seed: tuple[int, ...], augment: AugmentOptions
) -> npt.NDArray[np.uint8]:
    pixels = load_image(path)
    if view == 0:
        return resize_image(pixels, size)
    return random_view(pixels, size, np.random.default_rng(seed), augment)
