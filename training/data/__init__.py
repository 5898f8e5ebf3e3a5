"""Captioned data sets by name. One file per layout; a reader is imported when it is asked for."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from edgecap.runtime.errors import DataError
from edgecap.training.data.base import (
    Box,
    CaptionDataset,
    CaptionedImage,
    Problems,
    load_pixels,
)


@dataclass(frozen=True)
class Layout:
    """``module`` reads it; ``files`` says what it looks for; ``options`` may follow the folder."""

    module: str
    files: str
    options: tuple[str, ...] = ()


_CSV = "edgecap.training.data.captions_csv"
_GENOME = "edgecap.training.data.visual_genome"
# Names of one layout differ only in reports.
DATASETS = {
    "flickr8k": Layout(
        "edgecap.training.data.flickr8k",
        "captions.csv, Flickr8k.token.txt, dataset_flickr8k.json or captions.txt; pictures",
    ),
    "coco-captions": Layout(_CSV, "captions.csv, SPLIT.txt, images/"),
    "captions-csv": Layout(_CSV, "captions.csv, SPLIT.txt, images/"),
    "flickr30k": Layout(
        "edgecap.training.data.flickr30k",
        "captions.csv, dataset_flickr30k.json, results_20130124.token, results.csv or "
        "captions.txt; pictures",
    ),
    "coco": Layout("edgecap.training.data.coco", "annotations/captions_SPLIT.json, SPLIT/"),
    "coco-karpathy": Layout(
        "edgecap.training.data.karpathy", "dataset_coco.json, train2014/, val2014/"
    ),
    "visual-genome": Layout(
        _GENOME, "region_descriptions.json, image_data.json, VG_100K/, VG_100K_2/", ("seed",)
    ),
    "visual-genome-regions": Layout(
        _GENOME, "the same; every region as its own picture", ("seed",)
    ),
    "imagenet": Layout(
        "edgecap.training.data.imagenet",
        "SPLIT/CLASS/*.JPEG, LOC_synset_mapping.txt",
        ("template", "classes"),
    ),
    "own": Layout(
        "edgecap.training.data.own",
        "captions.csv or captions.jsonl (image, caption, maybe split); pictures",
        ("seed", "table"),
    ),
    "webdataset": Layout(
        "edgecap.training.data.webdataset", "SPLIT-000000.tar ..., or a pattern of shards"
    ),
}

__all__ = [
    "DATASETS",
    "Box",
    "CaptionDataset",
    "CaptionedImage",
    "Problems",
    "dataset_splits",
    "load_pixels",
    "open_dataset",
]


def open_dataset(
    spec: str, split: str, *, strict: bool = False, skip_damaged: bool = False
) -> CaptionDataset:
    """Open ``split`` of ``spec`` = "NAME:FOLDER", such as "flickr8k:data/flickr8k".

    A layout's options follow the folder as in an address: "own:mine?seed=7".

    strict : raise where an image has no file or no captions; else such images are left out and
        counted in ``CaptionDataset.problems``
    skip_damaged : leave out captions that were cut off; for training, never for evaluation

    Raises DataError on an unknown name or split (listing those there are), a missing folder or
    file, or a damaged one.
    """
    name, folder, options = _parse(spec)
    dataset: CaptionDataset = _reader(name).read(
        name, folder, split, strict=strict, skip_damaged=skip_damaged, **options
    )
    return dataset


def dataset_splits(spec: str) -> list[str]:
    """The splits of ``spec`` that do not overlap: training lists first, test lists last."""
    name, folder, options = _parse(spec)
    if name != "webdataset" and not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}; give NAME:FOLDER with the data set's folder")
    takes = {key: value for key, value in options.items() if name == "own"}
    found: list[str] = _reader(name).splits(folder, **takes)
    return sorted(found, key=_place)


def _place(split: str) -> tuple[int, str]:
    starts = ("train", "restval", "unassigned", "val", "dev", "test")
    places = [i for i, start in enumerate(starts) if split.startswith(start)]
    return (places[0] if places else 2, split)


def _reader(name: str) -> Any:
    return importlib.import_module(DATASETS[name].module)


def _parse(spec: str) -> tuple[str, Path, dict[str, str]]:
    name, colon, folder = spec.partition(":")
    if not colon or not folder:
        raise DataError(
            f"data set {spec!r} is not NAME:FOLDER; NAME is one of {', '.join(DATASETS)}"
        )
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; give one of {', '.join(DATASETS)}")
    path, mark, query = folder.rpartition("?")
    if not mark or Path(folder).expanduser().exists():  # a folder may have a mark in its name
        return name, Path(folder).expanduser(), {}
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = DATASETS[name].options
    wrong = [key for key in options if key not in known]
    if wrong or not options:
        given = wrong[0] if wrong else query
        raise DataError(
            f"unknown option {given!r} of data set {name!r}; it takes "
            f"{', '.join(known) or 'none'}, as in NAME:FOLDER?key=value"
        )
    return name, Path(path).expanduser(), options
