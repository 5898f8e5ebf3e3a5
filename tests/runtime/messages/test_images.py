"""Messages with images: every encoding against its own definition, and what does not fit."""

from __future__ import annotations

import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import ImageError
from edgecap.runtime.messages.images import ENCODINGS, header_of, picture_of

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (6, 8, 3), np.uint8)


def message(pixels: Any, order: str, **changes: Any) -> SimpleNamespace:
    pixels = np.ascontiguousarray(pixels)
    fields: dict[str, Any] = {
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": order,
        "is_bigendian": 0,
        "step": pixels[0].nbytes,
        "data": pixels.tobytes(),
    }
    return SimpleNamespace(**(fields | changes))


@pytest.mark.parametrize("encoding", ["bgr8", "8UC3", "rgb8", "bgra8", "8UC4", "rgba8"])
def test_orders_of_colours(encoding: str) -> None:
    alpha = np.full((6, 8, 1), 9, np.uint8)  # of no meaning in a camera's image
    rgb = COLOUR[..., ::-1]
    sent = {
        "bgr8": COLOUR,
        "8UC3": COLOUR,
        "rgb8": rgb,
        "bgra8": np.concatenate([COLOUR, alpha], 2),
        "8UC4": np.concatenate([COLOUR, alpha], 2),
        "rgba8": np.concatenate([rgb, alpha], 2),
    }[encoding]
    assert np.array_equal(picture_of(message(sent, encoding)), COLOUR)


def test_grey_of_8_and_16_bits_in_both_byte_orders() -> None:
    grey = COLOUR[..., 0]
    wanted = np.repeat(grey[..., None], 3, 2)
    assert np.array_equal(picture_of(message(grey, "mono8")), wanted)
    words = grey.astype(np.uint16) * 256 + 77
    assert np.array_equal(picture_of(message(words.astype("<u2"), "mono16")), wanted)
    big = message(words.astype(">u2"), "mono16", is_bigendian=1)
    assert np.array_equal(picture_of(big), wanted)


@pytest.mark.parametrize(
    ("encoding", "order"),
    [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")],
)
def test_yuv422_by_the_formula_of_bt601(encoding: str, order: str) -> None:
    luma = RNG.integers(40, 200, (4, 6)).astype(np.float64)
    u, v = (RNG.integers(100, 156, (4, 3)).astype(np.float64) for _ in "uv")
    packed = np.empty((4, 6, 2), np.uint8)
    chroma = np.empty((4, 6))
    chroma[:, 0::2], chroma[:, 1::2] = u, v
    packed[..., 0 if order == "yuyv" else 1] = luma
    packed[..., 1 if order == "yuyv" else 0] = chroma
    u, v = np.repeat(u, 2, 1) - 128, np.repeat(v, 2, 1) - 128
    y = 1.164 * (luma - 16)
    blue, green, red = y + 2.018 * u, y - 0.813 * v - 0.391 * u, y + 1.596 * v
    wanted = np.clip(np.stack([blue, green, red], 2), 0, 255)
    assert np.abs(picture_of(message(packed, encoding)) - wanted).max() <= 2


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_patterns_give_their_colours_back(pattern: str) -> None:
    colour = dict(zip("bgr", (30, 90, 220), strict=True))
    tile = np.array([[colour[pattern[0]], colour[pattern[1]]],
                     [colour[pattern[2]], colour[pattern[3]]]], np.uint8)  # fmt: skip
    picture = picture_of(message(np.tile(tile, (4, 5)), f"bayer_{pattern}8"))
    assert np.array_equal(picture[3, 3], [30, 90, 220])


def test_padding_cut_outs_and_kinds_of_buffers() -> None:
    padded = np.zeros((6, 40), np.uint8)
    padded[:, :24] = COLOUR.reshape(6, 24)
    for data in (padded.tobytes(), array.array("B", padded.tobytes()), padded.reshape(-1),
                 padded.reshape(-1).tolist(), padded.tobytes()[:-16]):  # fmt: skip
        got = picture_of(message(COLOUR, "bgr8", step=40, data=data))
        assert np.array_equal(got, COLOUR)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoding": "32FC1"}, r"encoding is '32FC1'; accepted are bgr8"),
        ({"encoding": ""}, "encoding is ''"),
        ({"step": 23}, "step is 23 bytes, but 8 pixels in bgr8 take 24"),
        ({"step": 25}, "holds 144 bytes, but 6 rows with a step of 25 take 150"),
        ({"height": 7}, "cut short, or its step does not fit"),
        ({"data": b""}, "holds 0 bytes"),
        ({"height": 0}, "8 x 0 pixels"),
        ({"width": 2**31, "height": 2**31}, "megapixels"),
        ({"encoding": "yuyv", "width": 7}, "even width"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ImageError, match=said) as caught:
        picture_of(message(COLOUR, "bgr8", **changes))
    assert "\n" not in str(caught.value)


@given(
    encoding=st.sampled_from([*ENCODINGS, "RGB8", "nv21", "ünknown"]),
    height=st.integers(0, 9),
    width=st.integers(0, 9),
    step=st.integers(0, 50),
    size=st.integers(0, 400),
)
@settings(max_examples=300, deadline=None)
def test_any_fields_give_a_picture_or_one_line(
    encoding: str, height: int, width: int, step: int, size: int
) -> None:
    data = bytes(size)
    given = SimpleNamespace(
        encoding=encoding, height=height, width=width, step=step, data=data, is_bigendian=0
    )
    said, picture = "", None
    try:
        picture = picture_of(given)
    except ImageError as error:
        said = str(error)
    if picture is None:
        assert len(said.splitlines()) == 1
    else:
        assert picture.shape == (height, width, 3)
        assert picture.dtype == np.uint8


def test_compressed_images() -> None:
    smooth = cv2.resize(COLOUR, (64, 48), interpolation=cv2.INTER_CUBIC)
    png = cv2.imencode(".png", smooth)[1].tobytes()
    got = picture_of(SimpleNamespace(format="png", data=array.array("B", png)))
    assert np.array_equal(got, smooth)
    jpeg = cv2.imencode(".jpg", smooth)[1].tobytes()
    got = picture_of(SimpleNamespace(format="bgr8; jpeg compressed bgr8", data=jpeg))
    assert np.abs(got.astype(int) - smooth).mean() < 12
    for data, said in (
        (jpeg[: len(jpeg) // 2], "cut short"),
        (b"", "empty"),
        (b"no", "no picture"),
    ):
        with pytest.raises(ImageError, match=said):
            picture_of(SimpleNamespace(format="jpeg", data=data))
    depth = SimpleNamespace(format="16UC1; compressedDepth png", data=b"\0" * 12 + png)
    with pytest.raises(ImageError, match="distances and no picture"):
        picture_of(depth)


def test_headers_keep_every_nanosecond() -> None:
    stamp = SimpleNamespace(sec=1_772_323_200, nanosec=999_999_999)
    given = SimpleNamespace(header=SimpleNamespace(stamp=stamp, frame_id="kamera_größe"))
    assert header_of(given, 5) == (1_772_323_200, 999_999_999, "kamera_größe", 5)
