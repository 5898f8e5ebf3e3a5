"""Your own pictures: a folder with one table, CSV or JSON lines.

    captions.csv      image,caption[,split]       a header, then a row a caption
    captions.jsonl    {"image": "a.jpg", "caption": "..." or ["...", "..."], "split": "train"}

Several captions of a picture are repeated rows or a list. ``image`` is a path below the folder or
below its images/. Without ``split``, train, val and test (80, 10, 10 %) follow from a hash of
``image`` and ``seed``: a picture keeps its side when others come or go. "all" is everything.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import HASH_SPLITS, assemble, hash_split, parse_seed
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import (
    find_file,
    find_folder,
    inside,
    read_text,
    require_folder,
    unknown_split,
)

TABLES = ("captions.csv", "captions.jsonl", "captions.txt")
LISTS = ("train.txt", "val.txt", "test.txt")


class _Row(msgspec.Struct):
    image: str
    caption: str | list[str]
    split: str | None = None


@dataclass
class _Entry:
    split: str | None
    captions: list[str] = field(default_factory=list)


def read(
    name: str,
    folder: Path,
    split: str,
    *,
    strict: bool,
    skip_damaged: bool,
    seed: str = "0",
    table: str = "",
) -> CaptionDataset:
    """Read a split. ``table`` names the table where it is none of ``TABLES``."""
    path = _table(require_folder(folder), table)
    entries, hashed = _entries(path, parse_seed(seed))
    known = _names(entries)
    # A hash may leave a side of a small set empty: "no image" says that better than "unknown".
    possible = HASH_SPLITS if hashed else ()
    if split not in (*known, *possible, "all"):
        raise unknown_split(folder, split, [*known, "all"])
    pictures = find_folder(folder, "images")
    named = (
        CaptionedImage(image, _place(folder, pictures, image, path), tuple(entry.captions))
        for image, entry in entries.items()
        if split in ("all", entry.split)
    )
    return assemble(name, folder, split, named, strict=strict, skip_damaged=skip_damaged)


def splits(folder: Path, table: str = "", seed: str = "0") -> list[str]:
    """The splits that have a picture; a small folder may have none in val."""
    return _names(_entries(_table(folder, table), parse_seed(seed))[0])


def _table(folder: Path, table: str) -> Path:
    if table:
        path = inside(folder, table, folder)
        if not path.is_file():
            raise DataError(f"no file {str(path)!r}; table=FILE names a table below the folder")
        return path
    found = find_file(folder, *TABLES)
    if found is None:
        raise DataError(
            f"{str(folder)!r} has none of {', '.join(TABLES)}; write one with image and caption"
        )
    lists = find_file(folder, *LISTS)
    if lists is not None:
        raise DataError(
            f"{str(folder)!r} has its splits in {lists.name}; open it as captions-csv:FOLDER, "
            "which keeps them, or add a column split and take the list away"
        )
    return found


def _place(folder: Path, pictures: Path | None, image: str, source: Path) -> Path:
    path = inside(folder, image, source)
    return path if pictures is None or path.is_file() else inside(pictures, image, source)


def _entries(path: Path, seed: int) -> tuple[dict[str, _Entry], bool]:
    """The pictures of a table, and whether their splits come from the hash."""
    entries: dict[str, _Entry] = {}
    rows = _json_rows if path.suffix in (".jsonl", ".ndjson") else _csv_rows
    for line, row in rows(path):
        split = row.split.strip() if row.split else None
        image = row.image.strip()
        if not image:
            raise DataError(f"line {line} of {str(path)!r} names no image")
        entry = entries.setdefault(image, _Entry(split))
        if entry.split != split:
            raise DataError(
                f"line {line} of {str(path)!r} puts {image!r} into split {split!r}, an earlier "
                f"line into {entry.split!r}; give a picture one split"
            )
        entry.captions += [row.caption] if isinstance(row.caption, str) else row.caption
    with_split = sum(entry.split is not None for entry in entries.values())
    if with_split not in (0, len(entries)):
        lacking = next(image for image, entry in entries.items() if entry.split is None)
        raise DataError(
            f"{str(path)!r} gives {with_split} of {len(entries)} pictures a split and {lacking!r} "
            "none; give it to all or to none"
        )
    if not with_split:
        for image, entry in entries.items():
            entry.split = hash_split(image, seed)
    return entries, not with_split


def _names(entries: dict[str, _Entry]) -> list[str]:
    return sorted({entry.split for entry in entries.values() if entry.split is not None})


def _json_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    decoder = msgspec.json.Decoder(_Row)
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError(
                f"line {number} of {str(path)!r} is not "
                f'{{"image": "a.jpg", "caption": "..."}}: {error}'
            ) from None
        yield number, row


def _csv_rows(path: Path) -> Iterator[tuple[int, _Row]]:
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    if not {"image", "caption"} <= set(rows.fieldnames or ()):
        found = ", ".join(rows.fieldnames or ()) or "nothing"
        raise DataError(f"the header of {str(path)!r} is {found}; it must have image, caption")
    try:
        for row in rows:
            if row["image"] is None or row["caption"] is None or None in row:
                raise DataError(
                    f"line {rows.line_num} of {str(path)!r} has more or fewer fields than the "
                    "header; put a caption with commas between double quotes"
                )
            yield rows.line_num, _Row(row["image"], row["caption"], row.get("split"))
    except csv.Error as error:
        raise DataError(f"line {rows.line_num} of {str(path)!r} is damaged: {error}") from None
