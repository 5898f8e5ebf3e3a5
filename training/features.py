"""A cache of the frozen trunk's output for several random views of every photograph.

The trunk (stem to stride 16) holds nine tenths of the encoder's work and keeps its ImageNet
weights, so it runs once per view; the tail and the decoder then train at a tenth of the cost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from edgecap.runtime.errors import DataError
from edgecap.runtime.image import load_image, resize_image
from edgecap.training.augment import AugmentOptions, random_view
from edgecap.training.models.image_transformer import COLOUR_GRID, IMAGE_SIZE, ImageTransformer
from edgecap.training.progress import track

BATCH = 32
TRUNK_SHAPE = (96, 14, 14)


class TrunkCache:
    """Memory-mapped views, float16 [V][N, 96, 14, 14] and uint8 colours [V][N, 28, 28, 3].

    View 0 is the plain squashed photograph; the others are random.
    """

    def __init__(self, folder: Path, paths: Sequence[Path], views: int) -> None:
        self.views = views
        self.trunk = [np.load(folder / f"trunk_{v}.npy", mmap_mode="r") for v in range(views)]
        self.colour = [np.load(folder / f"colour_{v}.npy", mmap_mode="r") for v in range(views)]
        self.size = len(paths)

    def batch(
        self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Gather (image, view) pairs: float16 [B, 96, 14, 14] and uint8 [B, 28, 28, 3]."""
        pairs = list(zip(images.tolist(), views.tolist(), strict=True))
        trunk = np.stack([self.trunk[v][i] for i, v in pairs])
        colour = np.stack([self.colour[v][i] for i, v in pairs])
        return torch.from_numpy(trunk), torch.from_numpy(colour)


def build_cache(
    folder: Path,
    paths: Sequence[Path],
    model: ImageTransformer,
    *,
    views: int,
    seed: int,
    augment: AugmentOptions,
) -> TrunkCache:
    """Compute what is missing of the cache; an interrupted run goes on at the next whole view."""
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(
        json.dumps([[p.name for p in paths], seed, asdict(augment)]).encode()
    ).hexdigest()
    stamp = folder / "key.txt"
    if stamp.exists() and stamp.read_text() != key:
        raise DataError(f"{folder} holds views of other pictures or options; name another folder")
    stamp.write_text(key)
    for view in range(views):
        if not (folder / f"colour_{view}.npy").exists():
            _build_view(folder, paths, model, view, seed, augment)
    return TrunkCache(folder, paths, views)


def _build_view(
    folder: Path,
    paths: Sequence[Path],
    model: ImageTransformer,
    view: int,
    seed: int,
    augment: AugmentOptions,
) -> None:
    trunk_file, colour_file = folder / f"trunk_{view}.npy", folder / f"colour_{view}.npy"
    trunk = np.lib.format.open_memmap(
        trunk_file.with_suffix(".part"), "w+", np.float16, (len(paths), *TRUNK_SHAPE)
    )
    colour = np.zeros((len(paths), COLOUR_GRID, COLOUR_GRID, 3), np.uint8)
    for start in track(range(0, len(paths), BATCH), f"view {view}"):
        batch = [
            _view_pixels(path, view, (seed, view, start + i), augment)
            for i, path in enumerate(paths[start : start + BATCH])
        ]
        pixels = torch.from_numpy(np.stack(batch))
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            grid, colours = model.trunk(pixels)
        trunk[start : start + len(batch)] = grid.to(torch.float16).numpy()
        colour[start : start + len(batch)] = colours.round().to(torch.uint8).numpy()
    trunk.flush()
    os.replace(trunk_file.with_suffix(".part"), trunk_file)
    np.save(folder / "colour.part.npy", colour)
    os.replace(folder / "colour.part.npy", colour_file)


def _view_pixels(
    path: Path, view: int, seed: tuple[int, ...], augment: AugmentOptions
) -> npt.NDArray[np.uint8]:
    pixels = load_image(path)
    if view == 0:
        return resize_image(pixels, IMAGE_SIZE)
    return random_view(pixels, IMAGE_SIZE, np.random.default_rng(seed), augment)
