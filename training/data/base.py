"""What a captioned data set is, whatever its files look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgecap.runtime.errors import ImageError

if TYPE_CHECKING:
    from edgecap.runtime.image import RGB

Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One picture and its captions in their order. ``load_pixels`` gives its pixels.

    id : its file name, or another name that is unique in the data set
    path : the file, or the tar shard it lies in
    box : x, y, width, height in pixels of the upright picture, where only that part is meant
    label : class index, where the set has classes (``CaptionDataset.classes`` names them)
    span : offset and size in bytes of the picture inside ``path``, where that is a tar shard
    data : the picture file itself, where it was streamed
    """

    id: str
    path: Path
    captions: tuple[str, ...]
    box: Box | None = None
    label: int | None = None
    span: tuple[int, int] | None = None
    data: bytes | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Problems:
    """What a split names and cannot give, and captions that look damaged.

    Images here are left out of the data set. ``damaged_captions`` are (image id, caption) pairs;
    ``open_dataset(..., skip_damaged=True)`` leaves them out. Empty captions always are.
    """

    missing_files: tuple[str, ...] = ()
    without_captions: tuple[str, ...] = ()
    damaged_captions: tuple[tuple[str, str], ...] = ()
    bad_boxes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{len(found)} {what} (such as {found[0]!r})"
            for what, found in (
                ("images without a file", self.missing_files),
                ("images without captions", self.without_captions),
                ("damaged captions", self.damaged_captions),
                ("boxes outside their picture", self.bad_boxes),
            )
            if found
        ]
        return ", ".join(parts) or "none"


@dataclass(frozen=True)
class CaptionDataset:
    """One split of a data set: a sequence of ``CaptionedImage``."""

    name: str
    folder: Path
    split: str
    images: tuple[CaptionedImage, ...]
    problems: Problems = Problems()
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> CaptionedImage:
        return self.images[index]

    def __iter__(self) -> Iterator[CaptionedImage]:
        return iter(self.images)

    @property
    def references(self) -> dict[str, list[str]]:
        """Image id -> captions, as ``edgecap.training.metrics.evaluate`` takes them."""
        return {image.id: list(image.captions) for image in self.images}


def read_bytes(image: CaptionedImage) -> bytes:
    """The picture file of ``image``, from its own file or out of its shard. Raises ImageError."""
    if image.data is not None:
        return image.data
    try:
        if image.span is None:
            return image.path.read_bytes()
        offset, size = image.span
        with image.path.open("rb") as shard:
            shard.seek(offset)
            data = shard.read(size)
    except OSError as error:
        raise ImageError(f"{image.path} cannot be read: {error.strerror}") from None
    if len(data) != size:
        raise ImageError(f"{image.path} ends inside {image.id!r}; copy the shard again")
    return data


def load_pixels(image: CaptionedImage) -> RGB:
    """The picture, or the part of it that ``image.box`` names: uint8 RGB [H, W, 3], upright.

    The one way from a data set to pixels: a path alone knows neither the box nor the place inside
    a shard. A box that reaches over the edge is cut at the edge. Raises ImageError.
    """
    from edgecap.runtime.image import load_image

    whole_file = image.span is None and image.data is None
    pixels = load_image(image.path if whole_file else read_bytes(image))
    if image.box is None:
        return pixels
    height, width = pixels.shape[:2]
    box = clip_box(image.box, width, height)
    if box is None:
        raise ImageError(
            f"the box {image.box} (x, y, width, height) of {image.id!r} lies outside its picture "
            f"of {width} x {height} pixels"
        )
    x, y, w, h = box
    return pixels[y : y + h, x : x + w].copy()


def clip_box(box: Box, width: int, height: int) -> Box | None:
    """The part of ``box`` inside a picture of ``width`` x ``height``; None where there is none."""
    x, y = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[0] + box[2], width), min(box[1] + box[3], height)
    return (x, y, right - x, bottom - y) if right > x and bottom > y else None
