"""Resizing and cropping, where Pillow is the measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from painted import check, distance, file_of
from PIL import Image

from edgecap.runtime.errors import ImageError, MissingExtraError
from edgecap.runtime.image import check_resampling, load_image, resize_image
from edgecap.runtime.manifest import ImageSpec


def test_large_jpegs_may_be_decoded_smaller(shared: Path) -> None:
    paths = sorted((shared / "data/coco_captions/images").glob("*.jpg"))[:4]
    tiles = [cv2.resize(load_image(path), (800, 600)) for path in paths]
    large = np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])
    data = file_of(Image.fromarray(large), "JPEG", quality=92)
    assert load_image(data).shape == (1200, 1600, 3)
    smaller = load_image(data, enough=4 * 112)
    assert smaller.shape == (600, 800, 3)
    assert load_image(data, enough=4 * 224).shape == (1200, 1600, 3)
    assert distance(resize_image(smaller, 112), resize_image(load_image(data), 112)) < 1.0


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 48), st.integers(0, 2**32 - 1))
def test_resized_pictures_keep_size_range_and_flatness(
    height: int, width: int, size: int, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    small = resize_image(rgb, size)
    check(small, size, size)
    assert small.min() >= rgb.min()
    assert small.max() <= rgb.max()
    flat = np.full_like(rgb, 77)
    assert (resize_image(flat, size) == 77).all()


def test_resizing_averages_areas() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    expected = rgb.reshape(16, 4, 16, 6, 3).mean((1, 3))
    assert np.abs(resize_image(rgb, 16) - expected).max() <= 0.51
    # A side that shrinks is averaged although the other grows.
    stripes = np.zeros((8, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resize_image(stripes, 32).astype(int) - 127).max() <= 1


def test_opencv_speaks_again_after_threads_that_overlap(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    logging = getattr(cv2.utils, "logging", cv2)
    before = logging.getLogLevel()
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((64, 64, 3), np.uint8))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load_image, [tmp_path / "a.png"] * 200))
    assert logging.getLogLevel() == before


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.integers(1, 40),
    st.integers(0, 12),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_pillow_s_ways_are_pillow_s_to_the_level(
    resample: Any, height: int, width: int, size: int, more: int, crop: bool, seed: int
) -> None:
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    side = size + more
    wide = tall = side
    if crop:
        wide, tall = (
            (side, int(side * height / width))
            if width < height
            else (int(side * width / height), side)
        )
    whole = Image.fromarray(rgb).resize((wide, tall), Image.Resampling[resample.upper()])
    left, top = (wide - size) // 2, (tall - size) // 2
    expected = np.asarray(whole.crop((left, top, left + size, top + size)))
    spec = ImageSpec(
        size=size, resize="crop" if crop else "squash", resize_to=side, resample=resample
    )
    found = resize_image(rgb, spec)
    check(np.ascontiguousarray(found), size, size)
    np.testing.assert_array_equal(found, expected)


def test_the_centre_is_kept_by_areas_too() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    found = resize_image(rgb, ImageSpec(size=32, resize="crop"))
    np.testing.assert_array_equal(found, resize_image(rgb[:, 16:80], 32))


def test_a_sliver_is_no_picture_to_crop() -> None:
    sliver = np.zeros((1, 60_000, 3), np.uint8)
    with pytest.raises(ImageError, match="too narrow"):
        resize_image(sliver, ImageSpec(size=224, resize="crop"))
    assert resize_image(sliver, 224).shape == (224, 224, 3)


def test_pillow_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    check_resampling(ImageSpec(size=8))
    spec = ImageSpec(size=8, resample="bicubic")
    with pytest.raises(MissingExtraError, match=r"edgecap\[pillow\]"):
        check_resampling(spec)
    with pytest.raises(MissingExtraError, match="bicubic"):
        resize_image(np.zeros((9, 9, 3), np.uint8), spec)
