"""Pictures: from a file, bytes or an array to uint8 RGB, and to the size a model takes.

Training reads and resizes with these same functions, so what was trained is what runs.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import ImageError, MissingExtraError
from edgecap.runtime.manifest import ImageSpec

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

RGB: TypeAlias = npt.NDArray[np.uint8]
ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | npt.NDArray[Any] | PillowImage"

MAX_PIXELS = 100_000_000
MAX_FILE_BYTES = 1 << 30
CHANNELS = ("RGB", "BGR", "RGBA", "BGRA")
FORMATS = "JPEG, PNG, WebP, BMP, GIF and TIFF"

# A marker that means something inside a JPEG: not a stuffed zero, a fill byte or a restart.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]", re.DOTALL)
_PNG_END = b"IEND\xaeB\x60\x82"


def load_image(source: ImageLike, channels: str | None = None, *, enough: int | None = None) -> RGB:
    """Any picture as uint8 RGB [H, W, 3], upright, alpha laid over white.

    source : path, the bytes of a picture file, a Pillow image, or an array: [H, W] or [H, W, 1]
        grey, [H, W, 3], [H, W, 4]; uint8, uint16 (full range) or float32/float64 in 0 to 1.
        Of an animation or a file of many pages the first is taken.
    channels : the order of an array's colours, "RGB", "BGR", "RGBA" or "BGRA". Needed for arrays
        of 3 and 4 channels, since nothing in them tells; not read for other sources.
    enough : a JPEG may be decoded at 1/2, 1/4 or 1/8 while both sides keep this many pixels

    Raises ``ImageError``.
    """
    if channels is not None and channels not in CHANNELS:
        raise ImageError(f"channels is {channels!r}; give one of {', '.join(CHANNELS)}")
    if isinstance(source, np.ndarray):
        return _from_array(source, channels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), f"picture of {len(source)} bytes", enough)
    if isinstance(source, str | os.PathLike):
        return _decode(_read(Path(source)), str(source), enough)
    if any(kind.__module__.startswith("PIL.") for kind in type(source).__mro__):
        return _from_pillow(source)
    raise ImageError(
        f"a {type(source).__name__} is no picture; give a path, bytes, a numpy array or a PIL image"
    )


def resize_image(rgb: RGB, image: ImageSpec | int) -> RGB:
    """uint8 [H, W, 3] of any size as the encoder takes it, uint8 [size, size, 3].

    image : how; a number alone is the side that pictures are squashed to by areas

    By areas: averaged along a side that shrinks, bilinear along a side that grows. The other ways
    give what Pillow gives, level by level. Raises ``ImageError`` for a picture so narrow that
    resizing it would take over ``MAX_PIXELS``, ``MissingExtraError`` where Pillow is wanted and
    absent.
    """
    spec = ImageSpec(size=image) if isinstance(image, int) else image
    height, width = rgb.shape[:2]
    size, side = spec.size, spec.side
    tall = wide = side
    if spec.resize == "crop":
        short = min(height, width)
        tall, wide = int(side * height / short), int(side * width / short)
        if tall * wide > MAX_PIXELS:
            raise ImageError(
                f"a picture of {width} x {height} pixels is too narrow: with {side} pixels on its "
                f"shorter side it would have over {MAX_PIXELS // 10**6} megapixels; cut it"
            )
    if (height, width) != (tall, wide):
        resample = _by_areas if spec.resample == "area" else _by_pillow
        rgb = resample(rgb, wide, tall, spec)
    top, left = (tall - size) // 2, (wide - size) // 2
    return rgb[top : top + size, left : left + size]


def check_resampling(image: ImageSpec) -> None:
    """Raises ``MissingExtraError`` where pictures for a model need Pillow and it is absent."""
    if image.resample == "area":
        return
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            f"this model's pictures are resized by Pillow ({image.resample}), which is not "
            'installed; pip install "edgecap[pillow]"'
        ) from None


def _by_areas(rgb: RGB, width: int, height: int, spec: ImageSpec) -> RGB:
    if rgb.shape[0] > height or rgb.shape[1] > width:
        smaller = (min(rgb.shape[1], width), min(rgb.shape[0], height))
        rgb = np.asarray(cv2.resize(rgb, smaller, interpolation=cv2.INTER_AREA), np.uint8)
    if rgb.shape[:2] != (height, width):
        larger = (width, height)
        rgb = np.asarray(cv2.resize(rgb, larger, interpolation=cv2.INTER_LINEAR), np.uint8)
    return rgb


def _by_pillow(rgb: RGB, width: int, height: int, spec: ImageSpec) -> RGB:
    check_resampling(spec)
    from PIL import Image

    way = getattr(Image.Resampling, spec.resample.upper())
    return np.array(Image.fromarray(rgb).resize((width, height), resample=way))


def _read(path: Path) -> bytes:
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ImageError(f"{path} is a folder; give the path of a picture file")
        if not stat.S_ISREG(info.st_mode) and not stat.S_ISFIFO(info.st_mode):
            raise ImageError(f"{path} is a device; give the path of a picture file")
        if info.st_size > MAX_FILE_BYTES:
            raise ImageError(f"{path} has {info.st_size} bytes; at most {MAX_FILE_BYTES} are read")
        return path.read_bytes()
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; give the path of a picture file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path} cannot be read: {reason}") from None


def _decode(data: bytes, name: str, enough: int | None) -> RGB:
    if not data:
        raise ImageError(f"{name} is empty; give a picture file ({FORMATS} are read)")
    width, height = _header_size(data, name)
    jpeg = data.startswith(b"\xff\xd8")
    # libjpeg and libpng fill a file's missing end with grey in some OpenCV versions.
    if (jpeg and not _jpeg_is_whole(data)) or (
        data.startswith(b"\x89PNG") and _PNG_END not in data
    ):
        raise ImageError(f"{name} is cut short: the picture's end is missing; copy it again")
    flags = cv2.IMREAD_COLOR if jpeg else cv2.IMREAD_UNCHANGED
    if jpeg and enough:
        for factor in (2, 4, 8):
            if min(width, height) >= factor * enough:
                flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")
    buffer = np.frombuffer(data, np.uint8)
    with _quiet_opencv():
        pixels = _imdecode(buffer, flags)
        # Unlike colour decoding, IMREAD_UNCHANGED keeps alpha and depth but not the orientation.
        if not jpeg and pixels is not None and (b"eXIf" in data or b"EXIF" in data):
            upright = _imdecode(buffer, cv2.IMREAD_COLOR)
            pixels = _turned_like(pixels, upright) if upright is not None else None
    if pixels is None:
        raise ImageError(f"{name} is damaged or cut short: its pixels cannot be decoded")
    return _from_array(pixels, "BGRA" if pixels.ndim == 3 and pixels.shape[2] == 4 else "BGR")


def _imdecode(buffer: npt.NDArray[np.uint8], flags: int) -> npt.NDArray[Any] | None:
    try:
        return cv2.imdecode(buffer, flags)
    except cv2.error:
        return None


def _header_size(data: bytes, name: str) -> tuple[int, int]:
    """Width and height that the file declares, read before anything is decoded."""
    import imagesize

    width = height = -1
    if data.startswith((b"\xff\xd8", b"\x89PNG", b"BM", b"GIF8", b"II*\0", b"MM\0*")) or (
        data.startswith(b"RIFF") and data[8:12] == b"WEBP"
    ):
        with contextlib.suppress(Exception):  # it raises many kinds on damaged headers
            width, height = imagesize.get(io.BytesIO(data))
    if width < 1 or height < 1:
        raise ImageError(f"{name} is no picture that can be read; {FORMATS} are")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} declares {width} x {height} pixels; at most {MAX_PIXELS // 10**6} megapixels "
            "are read: scale it down"
        )
    return width, height


def _jpeg_is_whole(data: bytes) -> bool:
    """Whether the end-of-image marker is reached; those inside thumbnails do not count."""
    position = 2
    while found := _JPEG_MARKER.search(data, position):
        if data[found.start() + 1] == 0xD9:
            return True
        position = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return False


def _turned_like(pixels: npt.NDArray[Any], upright: RGB) -> npt.NDArray[Any]:
    """``pixels`` in that one of the eight EXIF orientations which shows what ``upright`` shows."""
    best, best_error = pixels, float("inf")
    for mirrored in (pixels, pixels[:, ::-1]):
        for quarter in range(4):
            turned = np.rot90(mirrored, quarter)
            if turned.shape[:2] != upright.shape[:2]:
                continue
            grey = turned if turned.ndim == 2 else turned[..., 1]
            scale = 257.0 if turned.dtype == np.uint16 else 1.0
            error = float(np.abs(grey / scale - upright[..., 1]).mean())
            if error < best_error:
                best, best_error = turned, error
    return best


_quiet_lock = threading.Lock()
_quiet_levels: list[int] = []  # the level to restore, then one entry a thread inside


@contextlib.contextmanager
def _quiet_opencv() -> Iterator[None]:
    """A bad picture raises one line; OpenCV's own lines on stderr are kept out."""
    logging: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has the functions at its top
    with _quiet_lock:
        # The level is the process's: the first thread in silences it, the last one out restores it.
        if not _quiet_levels:
            _quiet_levels.append(logging.getLogLevel())
            logging.setLogLevel(0)
        _quiet_levels.append(0)
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_levels.pop()
            if len(_quiet_levels) == 1:
                logging.setLogLevel(_quiet_levels.pop())


def _from_array(array: npt.NDArray[Any], channels: str | None) -> RGB:
    shape = "x".join(str(side) for side in array.shape)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"an array of shape {shape or '()'} is no picture; give HxW, HxWx1, HxWx3 or HxWx4"
        )
    count = array.shape[2]
    if count > 1 and channels is None:
        choices = "'RGB' or 'BGR'" if count == 3 else "'RGBA' or 'BGRA'"
        raise ImageError(f"an array of shape {shape} needs its colour order: channels={choices}")
    if count == 3 and channels in ("RGBA", "BGRA"):
        raise ImageError(f"channels is {channels!r}, the array of shape {shape} has no alpha")
    pixels = _to_uint8(array)
    if count == 1:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB), np.uint8)
    if count == 4:
        pixels = _over_white(pixels)
    if channels is not None and channels.startswith("BGR"):
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return np.ascontiguousarray(pixels)


def _to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if array.dtype in (np.float32, np.float64):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0.0 and high <= 1.0):  # NaN fails both comparisons
            held = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
            raise ImageError(f"a {array.dtype} array holds {held}; give 0 to 1, or uint8")
        return np.rint(array * 255.0).astype(np.uint8)
    raise ImageError(
        f"an array of {array.dtype} is no picture; give uint8, uint16, or float32/float64 in 0 to 1"
    )


def _over_white(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    alpha = pixels[..., 3:].astype(np.uint32)
    colours = pixels[..., :3] * alpha + 255 * (255 - alpha)
    return ((colours + 127) // 255).astype(np.uint8)


def _from_pillow(image: Any) -> RGB:
    from PIL import ImageOps

    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"a PIL image of {image.width} x {image.height} pixels is over "
            f"{MAX_PIXELS // 10**6} megapixels: scale it down"
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            array = np.asarray(image)
            if array.dtype.kind in "iu":  # 16-bit grey; mode "I" holds the same values in 32 bits
                array = np.clip(array, 0, 65535).astype(np.uint16)
            return _from_array(array, None)
        if "A" in image.mode or "a" in image.mode or "transparency" in image.info:
            return _from_array(np.asarray(image.convert("RGBA")), "RGBA")
        return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"the PIL image cannot be read: {error}") from None
