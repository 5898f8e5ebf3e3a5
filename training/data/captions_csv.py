"""The layout of ``images/``, ``captions.csv`` and ``SPLIT.txt``.

``captions.csv`` has a header and the columns image, caption_index and caption (more are ignored);
``SPLIT.txt`` has one file name of ``images/`` per line.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.base import CaptionDataset, CaptionedImage, Problems

COLUMNS = ("image", "caption_index", "caption")
# A caption that ends in one of these has lost the rest of its sentence.
_DANGLING = frozenset(["a", "an", "the", "of", "and", "or", "while"])


def read(
    name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool
) -> CaptionDataset:
    """Read one split. With ``strict``, an image without file or captions is a DataError."""
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}; give NAME:FOLDER with the data set's folder")
    names = _split_names(folder, split)
    captions = _captions(folder / "captions.csv")
    images: list[CaptionedImage] = []
    missing: list[str] = []
    without: list[str] = []
    damaged: list[tuple[str, str]] = []
    for image in names:
        texts = captions.get(image, [])
        damaged += [(image, text) for text in texts if is_damaged(text)]
        if skip_damaged:
            texts = [text for text in texts if not is_damaged(text)]
        path = folder / "images" / image
        if not path.is_file():
            missing.append(image)
        elif not texts:
            without.append(image)
        else:
            images.append(CaptionedImage(image, path, tuple(texts)))
    problems = Problems(tuple(missing), tuple(without), tuple(damaged))
    if strict and (missing or without):
        raise DataError(
            f"split {split!r} of {str(folder)!r} has {problems}; mend the folder or open it "
            "without strict"
        )
    if not images:
        raise DataError(
            f"split {split!r} of {str(folder)!r} has no image with file and captions: {problems}; "
            "is 'images' complete?"
        )
    return CaptionDataset(name, folder, split, tuple(images), problems)


def is_damaged(caption: str) -> bool:
    """True for a caption that was cut off: one word or none, or a last word such as "of"."""
    words = caption.lower().replace(".", " ").split()
    return len(words) < 2 or words[-1] in _DANGLING


def splits(folder: Path) -> list[str]:
    """Names of the splits of a folder."""
    return sorted(path.stem for path in folder.glob("*.txt"))


def _split_names(folder: Path, split: str) -> list[str]:
    known = splits(folder)
    if split not in known:
        listed = ", ".join(known) or "none: it has no SPLIT.txt"
        raise DataError(f"unknown split {split!r}; {str(folder)!r} has {listed}")
    path = folder / f"{split}.txt"
    names = list(dict.fromkeys(line.strip() for line in _text(path).splitlines() if line.strip()))
    outside = [name for name in names if "/" in name or "\\" in name or name in (".", "..")]
    if outside:
        raise DataError(f"{str(path)!r} names {outside[0]!r}; give file names inside images/ only")
    return names


def _captions(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise DataError(f"no file {str(path)!r}; it must list the columns {', '.join(COLUMNS)}")
    rows = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {str(path)!r} as UTF-8 text: {error}") from None
