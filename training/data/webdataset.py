"""WebDataset shards as a data set: which shards a name means, and an index of their pictures.

    FOLDER/train-000000.tar ...     or FOLDER/train/000000.tar; the split is the name before the
                                    number, or the folder; "all" is every shard
    shard-{000000..000009}.tar      a pattern as bash expands it, instead of a folder

Reading the index passes over the pictures, which are then read from their place in the shard. For
training on shards that are not all here, or far away, use ``ShardStream`` of ``shards.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import assemble
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import unknown_split
from edgecap.training.data.shards import read_samples

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_CHOICE = re.compile(r"\{([^{}]*,[^{}]*)\}")
_NUMBER = re.compile(r"[-_.]?\d*$")
ALL = "all"


def read(
    name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool
) -> CaptionDataset:
    """Index the shards of a split. A sample without a picture counts as one without a file."""
    shards = find_shards(folder, split)

    def named() -> Iterator[CaptionedImage]:
        for shard in shards:
            for sample in read_samples(shard, data_from=None):
                image = sample.image(shard)
                lacking = Path(shard, sample.key)  # a path that cannot exist
                yield image if sample.picture else replace(image, path=lacking)

    return assemble(name, folder, split, named(), strict=strict, skip_damaged=skip_damaged)


def splits(folder: Path) -> list[str]:
    """Splits of the shards; "all" where their names tell none."""
    return sorted(_groups(folder)) or [ALL]


def find_shards(place: Path | str, split: str = ALL) -> tuple[str, ...]:
    """The shards of a folder or pattern, sorted as ``ShardOptions.shards`` takes them."""
    folder = Path(place).expanduser()
    if split == ALL:
        return tuple(str(path) for path in _files(folder))
    groups = _groups(folder)
    if split not in groups:
        raise unknown_split(folder, split, [*sorted(groups), ALL])
    return tuple(str(path) for path in groups[split])


def expand(pattern: str) -> list[str]:
    """``{000..010}`` and ``{a,b}`` expanded as bash does: zeros kept, left brace varies slowest."""
    range_, choice = _RANGE.search(pattern), _CHOICE.search(pattern)
    if range_ is None and choice is None:
        return [pattern]
    if choice is None or (range_ is not None and range_.start() < choice.start()):
        assert range_ is not None
        first, last = range_.groups()
        padded = any(len(text) > 1 and text[0] == "0" for text in (first, last))
        width = max(len(first), len(last)) if padded else 0
        step = 1 if int(first) <= int(last) else -1
        found = range_
        parts = [f"{n:0{width}}" for n in range(int(first), int(last) + step, step)]
    else:
        found, parts = choice, choice[1].split(",")
    head, tail = pattern[: found.start()], pattern[found.end() :]
    return [f"{head}{part}{rest}" for part in parts for rest in expand(tail)]


def _files(folder: Path) -> list[Path]:
    if folder.is_dir():
        found = sorted([*folder.glob("*.tar"), *folder.glob("*/*.tar")])
    else:
        found = [Path(name) for name in expand(str(folder))]
        missing = [path for path in found if not path.is_file()]
        if missing:
            raise DataError(
                f"no shard {str(missing[0])!r} ({len(missing)} of {len(found)} are missing); give "
                "a folder of .tar files or a pattern such as shard-{000000..000009}.tar"
            )
    if not found:
        raise DataError(f"{str(folder)!r} has no .tar file; give a folder of shards or a pattern")
    return found


def _groups(folder: Path) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in _files(folder):
        below = folder.is_dir() and path.parent != folder
        split = path.parent.name if below else _NUMBER.sub("", path.stem)
        if split:
            groups.setdefault(split, []).append(path)
    return groups
