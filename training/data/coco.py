"""COCO captions as the COCO consortium publishes them (Chen et al., 2015, arXiv:1504.00325).

    annotations/captions_train2014.json   and val2014, train2017, val2017
    train2014/COCO_train2014_*.jpg        or images/train2014/

A split is the name after ``captions_``; "train" and "val" mean the one such split there is.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import assemble
from edgecap.training.data.base import CaptionDataset, CaptionedImage
from edgecap.training.data.files import (
    find_folder,
    inside,
    read_json,
    require_folder,
    unknown_split,
)


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str


class _Annotation(msgspec.Struct, gc=False):
    image_id: int
    caption: str


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]


def read(
    name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool
) -> CaptionDataset:
    """Read one split; images come in the order of the file, captions in that of the annotations."""
    files = _files(require_folder(folder))
    split = _full_name(folder, split, list(files))
    path = files[split]
    content = read_json(path, _File, "a caption file of COCO")
    captions: dict[int, list[str]] = {image.id: [] for image in content.images}
    for annotation in content.annotations:
        if annotation.image_id not in captions:
            raise DataError(
                f"{str(path)!r} has a caption of image {annotation.image_id}, which it does not "
                "list; fetch the file again"
            )
        captions[annotation.image_id].append(annotation.caption)
    pictures = find_folder(folder, split, f"images/{split}") or folder / split
    named = (
        CaptionedImage(
            image.file_name, inside(pictures, image.file_name, path), tuple(captions[image.id])
        )
        for image in content.images
    )
    return assemble(name, folder, split, named, strict=strict, skip_damaged=skip_damaged)


def splits(folder: Path) -> list[str]:
    return list(_files(folder))


def _files(folder: Path) -> dict[str, Path]:
    found = sorted([*folder.glob("captions_*.json"), *folder.glob("annotations/captions_*.json")])
    if not found:
        raise DataError(
            f"{str(folder)!r} has no annotations/captions_SPLIT.json such as "
            "captions_val2017.json; give the folder that holds annotations/"
        )
    return {path.stem.removeprefix("captions_"): path for path in found}


def _full_name(folder: Path, split: str, known: list[str]) -> str:
    if split in known:
        return split
    years = [name for name in known if name.startswith(split) and name[len(split) :].isdigit()]
    if len(years) == 1:
        return years[0]
    raise unknown_split(folder, split, known)
