"""Pictures that come as arrays or from Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from painted import check, file_of, over_white, scene
from PIL import Image

from edgecap.runtime.errors import ImageError
from edgecap.runtime.image import load_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 5, 3), np.uint8)


def test_arrays_say_their_channels() -> None:
    assert (load_image(PIXELS, "RGB") == PIXELS).all()
    assert (load_image(PIXELS, "BGR") == PIXELS[..., ::-1]).all()
    assert (load_image(PIXELS[::-1, :, ::-1], "BGR") == PIXELS[::-1]).all()  # strided views too
    for count, choices in ((3, "channels='RGB' or 'BGR'"), (4, "channels='RGBA' or 'BGRA'")):
        with pytest.raises(ImageError, match=choices):
            load_image(np.zeros((6, 5, count), np.uint8))
    with pytest.raises(ImageError, match="has no alpha"):
        load_image(PIXELS, "RGBA")
    with pytest.raises(ImageError, match="give one of RGB, BGR, RGBA, BGRA"):
        load_image(PIXELS, "YUV")


def test_grey_arrays() -> None:
    for grey in (PIXELS[..., 0], PIXELS[..., :1]):
        rgb = load_image(grey)
        check(rgb, 6, 5)
        assert (rgb == PIXELS[..., :1]).all()


def test_alpha_arrays() -> None:
    rgba = np.dstack([PIXELS, RNG.integers(0, 256, (6, 5), np.uint8)])
    expected = over_white(Image.fromarray(rgba, "RGBA"))
    for order in ("RGBA", "RGB"):
        assert np.abs(load_image(rgba, order).astype(int) - expected).max() <= 1
    bgra = rgba[..., [2, 1, 0, 3]]
    for order in ("BGRA", "BGR"):
        assert (load_image(bgra, order) == load_image(rgba, "RGBA")).all()


def test_array_dtypes() -> None:
    for dtype in (np.float32, np.float64):
        assert (load_image((PIXELS / 255).astype(dtype), "RGB") == PIXELS).all()
    assert (load_image(PIXELS.astype(np.uint16) * 257, "RGB") == PIXELS).all()
    for dtype in (np.int64, np.int8, np.float16, bool, complex, object):
        with pytest.raises(ImageError, match=r"give uint8, uint16, or float32/float64 in 0 to 1"):
            load_image(PIXELS.astype(dtype), "RGB")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.1, 1.5, 255.0])
def test_float_arrays_out_of_range(bad: float) -> None:
    pixels = np.full((6, 5, 3), 0.5, np.float32)
    pixels[3, 2, 1] = bad
    message = "holds NaN" if np.isnan(bad) else "holds values from"
    with pytest.raises(ImageError, match=message):
        load_image(pixels, "RGB")


@pytest.mark.parametrize(
    "shape", [(), (5,), (0, 5, 3), (5, 0), (5, 6, 2), (5, 6, 5), (1, 5, 6, 3), (3, 5, 6)]
)
def test_array_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="give HxW, HxWx1, HxWx3 or HxWx4"):
        load_image(np.zeros(shape, np.uint8), "RGB")


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], object()])
def test_other_types(source: Any) -> None:
    with pytest.raises(ImageError, match="give a path, bytes, a numpy array or a PIL image"):
        load_image(source)


def test_pillow_modes() -> None:
    for mode in ("RGB", "L", "1", "P", "CMYK", "YCbCr", "HSV", "LAB"):
        image = scene().convert(mode) if mode != "LAB" else scene()
        check(load_image(image), 120, 200)
    with pytest.raises(ImageError, match="give 0 to 1"):
        load_image(Image.fromarray(np.full((4, 4), 7.0, np.float32)))
    cut = Image.open(io.BytesIO(file_of(scene(), "JPEG")[:2000]))
    with pytest.raises(ImageError, match="PIL image cannot be read"):
        load_image(cut)
