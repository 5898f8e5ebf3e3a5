"""``sensor_msgs/Image`` and ``CompressedImage`` to pixels.

Messages are told by their fields, not by their classes: those of rclpy, of a bag's decoder and of
any other library do. The encodings are those of ``sensor_msgs/image_encodings.hpp``.
"""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import ImageError
from edgecap.runtime.image import MAX_PIXELS, load_image
from edgecap.runtime.streams.frames import Header

BGR = npt.NDArray[np.uint8]

# encoding -> bytes of a pixel, what makes BGR of it (None: it is BGR)
_PLAIN: dict[str, tuple[int, int | None]] = {
    "bgr8": (3, None),
    "8uc3": (3, None),
    "rgb8": (3, cv2.COLOR_RGB2BGR),
    "bgra8": (4, cv2.COLOR_BGRA2BGR),
    "8uc4": (4, cv2.COLOR_BGRA2BGR),
    "rgba8": (4, cv2.COLOR_RGBA2BGR),
    "mono8": (1, cv2.COLOR_GRAY2BGR),
    "8uc1": (1, cv2.COLOR_GRAY2BGR),
    "mono16": (2, cv2.COLOR_GRAY2BGR),
}
# Two bytes a pixel, colours of two pixels shared; the names of before and after 2023.
_YUV = {
    "yuv422": cv2.COLOR_YUV2BGR_UYVY,
    "uyvy": cv2.COLOR_YUV2BGR_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
    "yuyv": cv2.COLOR_YUV2BGR_YUY2,
}
# OpenCV names the pattern by its second row and column.
_BAYER = {
    "bayer_rggb8": cv2.COLOR_BayerBG2BGR,
    "bayer_bggr8": cv2.COLOR_BayerRG2BGR,
    "bayer_gbrg8": cv2.COLOR_BayerGR2BGR,
    "bayer_grbg8": cv2.COLOR_BayerGB2BGR,
}
ENCODINGS = (*_PLAIN, *_YUV, *_BAYER)


def picture_of(message: Any) -> BGR:
    """The picture of an ``Image`` or a ``CompressedImage`` as uint8 BGR [H, W, 3].

    Raises ``ImageError`` for another encoding, for sizes, a step and data that do not fit each
    other, and for compressed data that is no picture or is cut short.
    """
    if hasattr(message, "encoding"):
        return _raw(message)
    return _compressed(message)


def header_of(message: Any, logged: int | None = None) -> Header:
    """The message's own header; ``logged`` in nanoseconds, where a bag says so."""
    stamp = message.header.stamp
    return Header(int(stamp.sec), int(stamp.nanosec), str(message.header.frame_id), logged)


def _raw(message: Any) -> BGR:
    encoding = str(message.encoding)
    name = encoding.lower()
    if name not in ENCODINGS:
        raise ImageError(
            f"the image's encoding is {encoding!r}; accepted are {', '.join(ENCODINGS)}"
        )
    height, width, step = int(message.height), int(message.width), int(message.step)
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError(
            f"the image has {width} x {height} pixels; accepted are 1 to {MAX_PIXELS // 10**6} "
            "megapixels"
        )
    if name in _YUV and width % 2:
        raise ImageError(f"an image in {name} has an even width; this one has {width} pixels")
    data = _bytes(message.data)
    size = 2 if name in _YUV else _PLAIN.get(name, (1, None))[0]
    row = width * size
    if step < row:
        raise ImageError(
            f"the image's step is {step} bytes, but {width} pixels in {name} take {row}; "
            "set step to the bytes of a row"
        )
    # The last row may come without its padding, as a cut-out of a larger image does.
    if data.size < step * (height - 1) + row:
        raise ImageError(
            f"the image holds {data.size} bytes, but {height} rows with a step of {step} take "
            f"{step * height}: it is cut short, or its step does not fit"
        )
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (step, 1), writeable=False)
    pixels = np.ascontiguousarray(rows)
    if name == "mono16":
        native = bool(message.is_bigendian) == (sys.byteorder == "big")
        words = pixels.view(np.uint16)
        pixels = ((words if native else words.byteswap()) >> 8).astype(np.uint8)
    if name in _BAYER:
        if height < 2 or width < 2:
            raise ImageError(f"an image in {name} has at least 2 x 2 pixels")
        return np.asarray(cv2.cvtColor(pixels, _BAYER[name]), np.uint8)
    if name in _YUV:
        return np.asarray(cv2.cvtColor(pixels.reshape(height, width, 2), _YUV[name]), np.uint8)
    pixels = pixels.reshape(height, width, -1)
    code = _PLAIN[name][1]
    return pixels if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def _compressed(message: Any) -> BGR:
    if "compressedDepth" in str(message.format):
        raise ImageError(
            f"the image's format is {message.format!r}, distances and no picture; "
            "give a topic of colour or grey images"
        )
    rgb = load_image(_bytes(message.data).tobytes())
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.uint8)


def _bytes(data: Any) -> npt.NDArray[np.uint8]:
    """bytes, array('B'), a numpy array or a list of numbers, as uint8 [N]."""
    try:
        return np.frombuffer(data, np.uint8)
    except TypeError:
        return np.asarray(data, np.uint8).reshape(-1)
    except ValueError:
        return np.zeros(0, np.uint8)  # an empty buffer
