"""What a captioned data set is, whatever its files look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CaptionedImage:
    """One photograph: ``id`` (its file name), where it lies, and its captions in their order."""

    id: str
    path: Path
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Problems:
    """What a split names and cannot give, and captions that look damaged.

    Images here are left out of the data set. ``damaged_captions`` are (image id, caption) pairs;
    ``open_dataset(..., skip_damaged=True)`` leaves them out.
    """

    missing_files: tuple[str, ...] = ()
    without_captions: tuple[str, ...] = ()
    damaged_captions: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{len(found)} {what} (such as {found[0]!r})"
            for what, found in (
                ("images without a file", self.missing_files),
                ("images without captions", self.without_captions),
                ("damaged captions", self.damaged_captions),
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
