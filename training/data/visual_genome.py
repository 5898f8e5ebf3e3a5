"""Visual Genome (Krishna et al., IJCV 123, 2017, arXiv:1602.07332): phrases on regions.

    region_descriptions.json, image_data.json     versions 1.0 to 1.4
    VG_100K/ and VG_100K_2/                       or images/VG_100K/..., or all in images/

``visual-genome-regions`` gives every region as its own picture, cut out by its box;
``visual-genome`` gives every picture once with all its phrases. There is no official split:
train, val and test (80, 10, 10 %) follow from a hash of the picture's file name and ``seed``, so
all regions of a picture are on one side; "all" is everything. Half of the pictures are COCO's
too: do not test on COCO what was trained on all of this set.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from edgecap.runtime.errors import DataError
from edgecap.training.data.assemble import HASH_SPLITS, assemble, hash_split, parse_seed
from edgecap.training.data.base import Box, CaptionDataset, CaptionedImage, clip_box
from edgecap.training.data.files import (
    find_file,
    find_folder,
    inside,
    read_json,
    require_folder,
    unknown_split,
)

REGIONS = "visual-genome-regions"
FOLDERS = ("VG_100K", "VG_100K_2")


class _Region(msgspec.Struct, gc=False):
    region_id: int
    x: int
    y: int
    width: int
    height: int
    phrase: str


class _Regions(msgspec.Struct, gc=False):
    regions: list[_Region]
    id: int | None = None
    image_id: int | None = None  # the name of ``id`` in version 1.0


class _Image(msgspec.Struct, gc=False):
    image_id: int
    url: str
    width: int
    height: int


def read(
    name: str, folder: Path, split: str, *, strict: bool, skip_damaged: bool, seed: str = "0"
) -> CaptionDataset:
    """Read a split as regions or as whole pictures, by ``name``.

    Boxes are cut at the picture's edge; those wholly outside are left out and counted. 5.4 million
    regions take some GB of memory.
    """
    if split not in (*HASH_SPLITS, "all"):
        raise unknown_split(folder, split, [*HASH_SPLITS, "all"])
    number = parse_seed(seed)
    described = _path(require_folder(folder), "region_descriptions.json")
    images = {
        image.image_id: image
        for image in read_json(
            _path(folder, "image_data.json"), list[_Image], "image_data.json of Visual Genome"
        )
    }
    entries = read_json(described, list[_Regions], "region_descriptions.json of Visual Genome")
    places = _Places(folder)
    bad: list[str] = []

    def named() -> Iterator[CaptionedImage]:
        for entry in entries:
            key = entry.id if entry.id is not None else entry.image_id
            if key is None or key not in images:
                raise DataError(
                    f"{str(described)!r} describes image {key}, which image_data.json does not "
                    "list; take both files from one version"
                )
            image = images[key]
            path = places.path(image)
            if split != "all" and hash_split(path.name, number) != split:
                continue
            if name == REGIONS:
                yield from _regions(entry, image, path, bad)
            else:
                yield CaptionedImage(path.name, path, tuple(r.phrase for r in entry.regions))

    # The list comes first: what it finds bad is part of the call.
    found = list(named())
    return assemble(
        name,
        folder,
        split,
        found,
        strict=strict,
        skip_damaged=skip_damaged,
        bad_boxes=tuple(bad),
    )


def splits(folder: Path) -> list[str]:
    _path(folder, "region_descriptions.json")
    return list(HASH_SPLITS)


def _regions(
    entry: _Regions, image: _Image, path: Path, bad: list[str]
) -> Iterator[CaptionedImage]:
    for region in entry.regions:
        key = f"{path.name}#{region.region_id}"
        box: Box = (region.x, region.y, region.width, region.height)
        clipped = clip_box(box, image.width, image.height)
        if clipped is None:
            bad.append(key)
        else:
            yield CaptionedImage(key, path, (region.phrase,), box=clipped)


class _Places:
    """Where a picture lies: the folder that its address names, or one folder for all."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "image_data.json"
        pairs = [(part, find_folder(folder, part, f"images/{part}")) for part in FOLDERS]
        self.parts = {part: found for part, found in pairs if found is not None}
        self.plain = find_folder(folder, "images") or folder

    def path(self, image: _Image) -> Path:
        address = PurePosixPath(image.url)
        if not address.name:
            raise DataError(f"{str(self.source)!r} gives image {image.image_id} no address")
        part = self.parts.get(address.parent.name, self.plain)
        return inside(part, address.name, self.source)


def _path(folder: Path, name: str) -> Path:
    path = find_file(folder, name, f"annotations/{name}")
    if path is None:
        raise DataError(f"{str(folder)!r} has no {name}; unpack it there from {name}.zip")
    return path
