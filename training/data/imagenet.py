"""ImageNet (Russakovsky et al., 2015, arXiv:1409.0575) and any set of class folders.

    train/n01440764/*.JPEG, val/n01440764/*.JPEG       or ILSVRC/Data/CLS-LOC/train/...
    LOC_synset_mapping.txt                             "n01440764 tench, Tinca tinca" a line

A class's index is the place of its folder among the sorted folders of train (as torchvision
counts), which for the 1,000 classes is the order of LOC_synset_mapping.txt. Captions are made of
the first name of the class by templates; they are for pretraining, nobody wrote them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import assemble
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import (
    find_file,
    find_folder,
    read_text,
    require_folder,
    unknown_split,
)

TEMPLATE = "a photo of {article} {name}"
SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp")
_SYNSET = re.compile(r"n\d{8}")


def read(
    name: str,
    folder: Path,
    split: str,
    *,
    strict: bool,
    skip_damaged: bool,
    template: str = TEMPLATE,
    classes: str = "",
) -> CaptionDataset:
    """Read the pictures of ``split`` with ``label`` and captions; ``classes`` names the labels.

    template : of the caption, several between bars: "a photo of {article} {name}|a {name}".
        {name} is the first name of the class, {article} "a" or "an" before it.
    classes : a file of "FOLDER name, other name" lines; else LOC_synset_mapping.txt of ``folder``
    """
    templates = [" ".join(text.split()) for text in template.split("|")]
    if any("{name}" not in text for text in templates):
        raise DataError(f"template {template!r} lacks {{name}} in a part; see {TEMPLATE!r}")
    root = _root(require_folder(folder))
    known = _class_folders(root)
    if split not in known:
        raise unknown_split(folder, split, sorted(known))
    order = sorted(known.get("train", known[split]))
    extra = set(known[split]) - set(order)
    if extra:
        raise DataError(f"{str(root / split)!r} has the class {min(extra)!r}, which train has not")
    names = _class_names(folder, order, classes)

    def named() -> Iterator[CaptionedImage]:
        for label, directory in enumerate(order):
            captions = tuple(_caption(text, names[label]) for text in templates)
            for file in _pictures(root / split / directory):
                yield CaptionedImage(
                    f"{directory}/{file}", root / split / directory / file, captions, label=label
                )

    return assemble(
        name,
        folder,
        split,
        named(),
        strict=strict,
        skip_damaged=skip_damaged,
        classes=tuple(names),
    )


def splits(folder: Path) -> list[str]:
    return sorted(_class_folders(_root(folder)))


def _root(folder: Path) -> Path:
    return find_folder(folder, "ILSVRC/Data/CLS-LOC", "Data/CLS-LOC") or folder


def _class_folders(root: Path) -> dict[str, list[str]]:
    """Split -> its class folders. A split is a folder of folders."""
    found: dict[str, list[str]] = {}
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            inner = [entry.name for entry in os.scandir(path) if entry.is_dir()]
            if inner:
                found[path.name] = inner
    if not found:
        raise DataError(
            f"{str(root)!r} has no SPLIT/CLASS/ folders such as train/n01440764; sort the pictures "
            "into one folder a class (val too)"
        )
    return found


def _pictures(folder: Path) -> list[str]:
    # A class that a split lacks is an empty one.
    if not folder.is_dir():
        return []
    entries = (entry.name for entry in os.scandir(folder))
    return sorted(name for name in entries if name.lower().endswith(SUFFIXES))


def _class_names(folder: Path, order: list[str], classes: str) -> list[str]:
    if classes:
        path: Path | None = Path(classes).expanduser()
    else:
        path = find_file(folder, "LOC_synset_mapping.txt")
    if path is None:
        nameless = [directory for directory in order if _SYNSET.fullmatch(directory)]
        if nameless:
            raise DataError(
                f"{nameless[0]!r} is no class name and {str(folder)!r} has no "
                "LOC_synset_mapping.txt; put it there or give classes=FILE"
            )
        return [directory.replace("_", " ") for directory in order]
    pairs = (line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip())
    table = {pair[0]: pair[-1].split(",")[0].strip() for pair in pairs}
    missing = [directory for directory in order if directory not in table]
    if missing:
        raise DataError(f"{str(path)!r} does not name the class {missing[0]!r}; add its line")
    return [table[directory] for directory in order]


def _caption(template: str, name: str) -> str:
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return template.replace("{article}", article).replace("{name}", name)
