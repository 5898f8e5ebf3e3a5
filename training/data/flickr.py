"""What Flickr8k and Flickr30k share: a caption table, lists of names, a folder of pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from edgecap.runtime.errors import DataError
from edgecap.training.data import captions_csv, karpathy
from edgecap.training.data.assemble import assemble
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import (
    find_file,
    find_folder,
    inside,
    require_folder,
)
from edgecap.training.data.tables import read_names

TableReader: TypeAlias = Callable[[Path], dict[str, list[str]]]
ALL = "all"


@dataclass(frozen=True)
class Layout:
    """Paths below the set's folder, the first that exists wins.

    tables : caption tables with their readers; None is a split file of Karpathy's
    lists : split -> its list of file names
    """

    tables: tuple[tuple[str, TableReader | None], ...]
    lists: Mapping[str, tuple[str, ...]]
    pictures: tuple[str, ...]


def read(
    layout: Layout, name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool
) -> CaptionDataset:
    """Read a split: train, val or test; "all" is every picture that has captions."""
    if (folder / "captions.csv").is_file():
        return captions_csv.read(name, folder, split, strict=strict, skip_damaged=skip_damaged)
    table, reader = _table(layout, require_folder(folder))
    pictures = find_folder(folder, *layout.pictures) or folder
    if reader is None:
        return karpathy.read_file(
            table, name, folder, pictures, split, strict=strict, skip_damaged=skip_damaged
        )
    lists = _lists(layout, folder)
    if split != ALL and split not in lists:
        known = ", ".join([*lists, ALL])
        hint = "" if lists else f"; its lists ({', '.join(_first(layout))}) go beside {table.name}"
        raise DataError(f"unknown split {split!r}; {str(folder)!r} has {known}{hint}")
    captions = reader(table)
    names = list(captions) if split == ALL else read_names(lists[split])
    source = table if split == ALL else lists[split]
    named = (
        CaptionedImage(image, inside(pictures, image, source), tuple(captions.get(image, ())))
        for image in names
    )
    return assemble(name, folder, split, named, strict=strict, skip_damaged=skip_damaged)


def splits(layout: Layout, folder: Path) -> list[str]:
    if (folder / "captions.csv").is_file():
        return captions_csv.splits(folder)
    table, reader = _table(layout, folder)
    return karpathy.file_splits(table) if reader is None else list(_lists(layout, folder)) or [ALL]


def _table(layout: Layout, folder: Path) -> tuple[Path, TableReader | None]:
    for name, reader in layout.tables:
        if (folder / name).is_file():
            return folder / name, reader
    names = dict.fromkeys(Path(name).name for name, _ in layout.tables)
    raise DataError(
        f"no file {str(folder / 'captions.csv')!r} and none of {', '.join(names)} beside it; give "
        "the folder that holds one of them"
    )


def _lists(layout: Layout, folder: Path) -> dict[str, Path]:
    found = {split: find_file(folder, *names) for split, names in layout.lists.items()}
    return {split: path for split, path in found.items() if path is not None}


def _first(layout: Layout) -> list[str]:
    return [names[0] for names in layout.lists.values()]
