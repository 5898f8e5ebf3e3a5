"""Pictures that cannot be read: cut short, damaged, too large, none at all."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from painted import check, file_of, pillow, scene, translucent
from PIL import Image

from edgecap.runtime.errors import ImageError
from edgecap.runtime.image import load_image


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
