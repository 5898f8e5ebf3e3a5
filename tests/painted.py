"""Painted pictures as files of any kind, and Pillow's reading of them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def scene(width: int = 200, height: int = 120) -> Image.Image:
    """A picture without symmetry: smooth colours, a box and a line."""
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 255 / width, y * 255 / height, 128 + 100 * np.sin(x / 17 + y / 29)], -1)
    rgb[10:40, 20:90] = (200, 30, 60)
    rgb[height - 20 :, 5:12] = (10, 220, 240)
    return Image.fromarray(rgb.astype(np.uint8))


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def check(rgb: np.ndarray, *shape: int) -> None:
    assert rgb.dtype == np.uint8
    assert rgb.shape == (*shape, 3)
    assert rgb.flags.c_contiguous


def over_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def translucent() -> Image.Image:
    image = scene().convert("RGBA")
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (120, 1))
    image.putalpha(Image.fromarray(alpha))
    return image
