"""The split files of Karpathy and Fei-Fei (2015, arXiv:1412.2306): captions and splits in one JSON.

    dataset_coco.json    train2014/ and val2014/, or images/train2014/ and images/val2014/

``dataset_flickr8k.json`` and ``dataset_flickr30k.json`` have the same form; ``flickr8k.py`` and
``flickr30k.py`` read them from here. Splits are train, val, test and, for COCO, restval;
"train+restval" is what COCO results are usually trained on, "all" every picture.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import msgspec

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import assemble
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import (
    find_file,
    find_folder,
    inside,
    read_json,
    require_folder,
    unknown_split,
)

WHAT = "a split file of Karpathy's"


class _Sentence(msgspec.Struct, gc=False):
    raw: str | None = None
    tokens: list[str] = []

    @property
    def text(self) -> str:
        return " ".join(self.tokens) if self.raw is None else self.raw


class _Image(msgspec.Struct, gc=False):
    filename: str
    split: str
    sentences: list[_Sentence]
    filepath: str = ""


class _File(msgspec.Struct):
    images: list[_Image]


class _SplitOnly(msgspec.Struct, gc=False):
    split: str


class _Splits(msgspec.Struct):
    images: list[_SplitOnly]


def read(
    name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool
) -> CaptionDataset:
    """Read a split, or several as "train+restval", of ``dataset_coco.json``."""
    pictures = folder if find_folder(folder, "train2014", "val2014") else folder / "images"
    return read_file(
        _file(folder), name, folder, pictures, split, strict=strict, skip_damaged=skip_damaged
    )


def splits(folder: Path) -> list[str]:
    return file_splits(_file(folder))


def read_file(
    path: Path,
    name: str,
    folder: Path,
    pictures: Path,
    split: str,
    *,
    strict: bool,
    skip_damaged: bool,
) -> CaptionDataset:
    """Read ``split`` of the split file ``path``; its pictures lie in ``pictures``."""
    content = read_json(path, _File, WHAT)
    known = sorted({image.split for image in content.images})
    wanted = known if split == "all" else split.split("+")
    if not set(wanted) <= set(known):
        raise unknown_split(folder, split, known)
    named = (
        CaptionedImage(
            image.filename,
            inside(pictures, str(PurePosixPath(image.filepath, image.filename)), path),
            tuple(sentence.text for sentence in image.sentences),
        )
        for image in content.images
        if image.split in wanted
    )
    return assemble(name, folder, split, named, strict=strict, skip_damaged=skip_damaged)


def file_splits(path: Path) -> list[str]:
    return sorted({image.split for image in read_json(path, _Splits, WHAT).images})


def _file(folder: Path) -> Path:
    names = ("dataset_coco.json", "annotations/dataset_coco.json")
    path = find_file(require_folder(folder), *names)
    if path is None:
        raise DataError(f"{str(folder)!r} has no {names[0]}; put it beside the picture folders")
    return path
