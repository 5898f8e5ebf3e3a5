"""Reading pictures, with Pillow as the second opinion, and pictures that cannot be read."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgecap.runtime.errors import ImageError, MissingExtraError
from edgecap.runtime.image import check_resampling, load_image, resize_image
from edgecap.runtime.manifest import ImageSpec


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


def over_white(image: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", image.size, "white")
    return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))


def translucent() -> Image.Image:
    image = scene().convert("RGBA")
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (120, 1))
    image.putalpha(Image.fromarray(alpha))
    return image


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


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {}),
        ("BMP", {}),
        ("GIF", {}),
        ("TIFF", {}),
    ],
)
def test_cut_short(
    capfd: pytest.CaptureFixture[str], kind: str, options: dict[str, Any], kept: float
) -> None:
    data = file_of(scene(), kind, **options)
    with pytest.raises(ImageError, match=r"cut short|can be read"):
        load_image(data[: int(len(data) * kept)])
    if kind != "TIFF":  # libtiff's own lines are OpenCV's to keep
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_photographs_cut_short(shared: Path, tmp_path: Path, kept: float) -> None:
    for path in sorted((shared / "data/coco_captions/images").glob("*.jpg"))[:20]:
        data = path.read_bytes()
        check(load_image(path), *pillow(data).shape[:2])
        cut = tmp_path / path.name
        cut.write_bytes(data[: int(len(data) * kept)])
        with pytest.raises(ImageError, match="cut short: the picture's end is missing"):
            load_image(cut)


def test_a_thumbnail_does_not_hide_that_the_end_is_missing() -> None:
    thumbnail = file_of(scene(40, 24), "JPEG")
    exif = Image.Exif()
    exif[0x010E] = thumbnail.decode("latin-1")  # a whole JPEG, end marker too, in the header
    data = file_of(scene(), "JPEG", exif=exif.tobytes() + thumbnail)
    assert data.count(b"\xff\xd9") >= 2
    check(load_image(data), 120, 200)
    check(load_image(data + b"bytes that a camera adds after the end"), 120, 200)
    with pytest.raises(ImageError, match="cut short"):
        load_image(data[: int(len(data) * 0.95)])


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IEND\xaeB\x60\x82"


def patched(data: bytes, at: int, layout: str, *values: int) -> bytes:
    packed = struct.pack(layout, *values)
    return data[:at] + packed + data[at + len(packed) :]


def bombs() -> dict[str, Callable[[], bytes]]:
    def jpeg() -> bytes:
        data = file_of(scene(), "JPEG")
        return patched(data, data.index(b"\xff\xc0") + 5, ">HH", 20000, 20000)

    def tiff() -> bytes:
        data = file_of(scene(), "TIFF")
        for tag in (256, 257):  # ImageWidth, ImageLength
            entry = data.index(struct.pack("<HHI", tag, 4, 1))
            data = patched(data, entry + 8, "<I", 20000)
        return data

    def webp() -> bytes:
        data = file_of(translucent(), "WEBP")
        assert data[12:16] == b"VP8X"
        side = (20000 - 1).to_bytes(3, "little")
        return data[:24] + side + side + data[30:]

    return {
        "JPEG": jpeg,
        "PNG": lambda: png_header(20000, 20000),
        "GIF": lambda: patched(file_of(scene(), "GIF"), 6, "<HH", 20000, 20000),
        "BMP": lambda: patched(file_of(scene(), "BMP"), 18, "<ii", 20000, 20000),
        "BMP upside down": lambda: patched(file_of(scene(), "BMP"), 18, "<ii", 20000, -20000),
        "TIFF": tiff,
        "WebP": webp,
    }


@pytest.mark.parametrize("kind", bombs())
def test_a_small_file_that_declares_a_huge_picture(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("decoded before the header was checked")

    data = bombs()[kind]()
    monkeypatch.setattr(cv2, "imdecode", never)
    with pytest.raises(ImageError, match="20000 x 20000 pixels; at most 100 megapixels"):
        load_image(data)


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is a text file\n" * 20,
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        b"%PDF-1.7 not a picture",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="5" height="5"/>',
    ],
)
def test_no_picture(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"picture\.jpg is no picture that can be read; JPEG, PNG"):
        load_image(path)


def test_damaged_in_the_middle() -> None:
    data = bytearray(file_of(scene(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        load_image(bytes(data))


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"nothing\.jpg does not exist"):
        load_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r"empty\.jpg is empty"):
        load_image(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="empty"):
        load_image(b"")
    with pytest.raises(ImageError, match="cannot be read"):
        load_image("bad\0name")
    with pytest.raises(ImageError, match="is a device"):
        load_image("/dev/zero")
    with (tmp_path / "sparse.png").open("wb") as stream:
        stream.truncate(2 << 30)
    with pytest.raises(ImageError, match="has 2147483648 bytes; at most 1073741824 are read"):
        load_image(tmp_path / "sparse.png")


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
    rgb = RNG.integers(0, 256, (64, 96, 3), np.uint8)
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
    rgb = RNG.integers(0, 256, (64, 96, 3), np.uint8)
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
