from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

Writer: TypeAlias = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def write_picture() -> Writer:
    """``write_picture(path, seed, width=32, height=24)`` writes blocks of colours as JPEG or PNG,
    each seed another picture, and returns them as RGB before compression."""
    import cv2

    def write(path: Path, seed: int, width: int = 32, height: int = 24) -> np.ndarray:
        path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        blocks = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
        pixels = blocks.repeat(8, 0).repeat(8, 1)[:height, :width]
        suffix = path.suffix if path.suffix in (".jpg", ".png") else ".jpg"
        done, data = cv2.imencode(suffix, pixels[..., ::-1])
        assert done
        path.write_bytes(data.tobytes())
        return pixels

    return write
