"""The layout of ``images/``, ``captions.csv`` and ``SPLIT.txt``.

``captions.csv`` has a header and the columns image, caption_index and caption (more are ignored);
``SPLIT.txt`` has one file name of ``images/`` per line.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import assemble
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import read_text, require_folder

COLUMNS = ("image", "caption_index", "caption")


def read(
    name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool
) -> CaptionDataset:
    """Read one split. With ``strict``, an image without file or captions is a DataError."""
    names = _split_names(require_folder(folder), split)
    captions = _captions(folder / "captions.csv")
    named = (
        CaptionedImage(image, folder / "images" / image, tuple(captions.get(image, ())))
        for image in names
    )
    return assemble(name, folder, split, named, strict=strict, skip_damaged=skip_damaged)


def splits(folder: Path) -> list[str]:
    """Names of the splits of a folder."""
    return sorted(path.stem for path in folder.glob("*.txt"))


def _split_names(folder: Path, split: str) -> list[str]:
    known = splits(folder)
    if split not in known:
        listed = ", ".join(known) or "none: it has no SPLIT.txt"
        raise DataError(f"unknown split {split!r}; {str(folder)!r} has {listed}")
    path = folder / f"{split}.txt"
    lines = read_text(path).splitlines()
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    outside = [name for name in names if "/" in name or "\\" in name or name in (".", "..")]
    if outside:
        raise DataError(f"{str(path)!r} names {outside[0]!r}; give file names inside images/ only")
    return names


def _captions(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise DataError(f"no file {str(path)!r}; it must list the columns {', '.join(COLUMNS)}")
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    if rows.fieldnames is None or any(column not in rows.fieldnames for column in COLUMNS):
        found = ", ".join(rows.fieldnames or ()) or "nothing"
        raise DataError(
            f"the header of {str(path)!r} is {found}; it must have {', '.join(COLUMNS)}"
        )
    captions: dict[str, list[tuple[int, str]]] = {}
    try:
        for row in rows:
            captions.setdefault(row["image"], []).append(
                (int(row["caption_index"]), " ".join(row["caption"].split()))
            )
    except (csv.Error, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"line {rows.line_num} of {str(path)!r} is damaged ({error}); it must have an image, a "
            "whole number and a caption"
        ) from None
    return {image: [text for _, text in sorted(pairs)] for image, pairs in captions.items()}
