"""Reading pictures of every kind, with Pillow as the second opinion."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from painted import check, distance, file_of, over_white, pillow, scene, translucent
from PIL import Image

from edgecap.runtime.image import load_image, resize_image

LOSSLESS = [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
LOSSY = [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("JPEG", {"quality": 30})]


@pytest.mark.parametrize(("kind", "options"), LOSSLESS + LOSSY)
def test_formats(tmp_path: Path, kind: str, options: dict[str, Any]) -> None:
    data = file_of(scene(), kind, **options)
    path = tmp_path / "picture"
    path.write_bytes(data)
    for source in (path, str(path), data, bytearray(data)):
        rgb = load_image(source)
        check(rgb, 120, 200)
        assert distance(rgb, pillow(data)) < (0.001 if (kind, options) in LOSSLESS else 1.0)


def test_grey_files() -> None:
    grey = scene().convert("L")
    for kind in ("PNG", "JPEG", "BMP", "TIFF"):
        data = file_of(grey, kind)
        rgb = load_image(data)
        check(rgb, 120, 200)
        assert (rgb[..., 0] == rgb[..., 1]).all()
        assert distance(rgb, pillow(data)) < 0.5
    check(load_image(file_of(grey.convert("1"), "PNG")), 120, 200)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_laid_over_white(mode: str) -> None:
    image = translucent().convert(mode)
    expected = over_white(image)
    for source in (file_of(image, "PNG"), file_of(image, "WEBP", lossless=True, exact=True), image):
        rgb = load_image(source)
        assert np.abs(rgb.astype(int) - expected).max() <= 1
    assert (load_image(file_of(image, "PNG"))[:, 0] == 255).all()  # fully transparent


def test_palettes_with_and_without_transparency() -> None:
    image = scene().convert("P")
    assert distance(load_image(file_of(image, "PNG")), np.asarray(image.convert("RGB"))) == 0
    for kind in ("PNG", "GIF"):
        data = file_of(image, kind, transparency=3)
        expected = over_white(Image.open(io.BytesIO(data)))
        assert distance(load_image(data), expected) < 0.01
        assert distance(load_image(Image.open(io.BytesIO(data))), expected) < 0.01


def test_sixteen_bits() -> None:
    eight = np.asarray(scene().convert("L"))
    sixteen = Image.fromarray(eight.astype(np.uint16) * 257)
    for source in (file_of(sixteen, "PNG"), file_of(sixteen, "TIFF"), sixteen):
        assert (load_image(source)[..., 0] == eight).all()
    colour = np.asarray(scene()).astype(np.uint16) * 257
    data = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    assert (load_image(data) == np.asarray(scene())).all()
    alpha = np.dstack([colour[..., ::-1], np.full(colour.shape[:2], 65535, np.uint16)])
    assert (load_image(cv2.imencode(".png", alpha)[1].tobytes()) == np.asarray(scene())).all()


def test_cmyk_jpeg_has_pillows_colours() -> None:
    data = file_of(scene().convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert distance(load_image(data), pillow(data)) < 2.0
    assert distance(load_image(data), np.asarray(scene())) < 4.0
    assert distance(load_image(scene().convert("CMYK")), np.asarray(scene())) < 2.0


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "RGB", {"quality": 95}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {"lossless": True, "exact": True}),
        ("TIFF", "RGB", {}),
    ],
)
def test_exif_orientation(kind: str, mode: str, options: dict[str, Any], orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    image = translucent() if mode == "RGBA" else scene()
    data = file_of(image, kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = over_white(upright)
    for source in (data, Image.open(io.BytesIO(data))):
        assert distance(load_image(source), expected) < 1.0


def test_orientation_of_sixteen_bit_png() -> None:
    sixteen = Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = load_image(file_of(sixteen, "PNG", exif=exif))
    assert (turned[..., 0] == np.rot90(np.asarray(scene().convert("L")), -1)).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_of_many_frames(kind: str) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert distance(load_image(data), np.asarray(frames[0])) < 1


def test_one_pixel() -> None:
    for kind in ("JPEG", "PNG"):
        check(load_image(file_of(Image.new("RGB", (1, 1), "red"), kind)), 1, 1)
    check(resize_image(load_image(file_of(Image.new("RGB", (1, 1)), "PNG")), 32), 32, 32)
