"""Captioned data sets by name. One file per layout; a reader is imported when it is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.base import CaptionDataset, CaptionedImage, Problems

# Name -> the module whose ``read`` opens it. Names of one layout differ only in reports.
DATASETS = {
    "flickr8k": "edgecap.training.data.captions_csv",
    "coco-captions": "edgecap.training.data.captions_csv",
    "captions-csv": "edgecap.training.data.captions_csv",
}

__all__ = ["DATASETS", "CaptionDataset", "CaptionedImage", "Problems", "open_dataset"]


def open_dataset(
    spec: str, split: str, *, strict: bool = False, skip_damaged: bool = False
) -> CaptionDataset:
    """Open ``split`` of ``spec`` = "NAME:FOLDER", such as "flickr8k:data/flickr8k".

    strict : raise where an image has no file or no captions; else such images are left out and
        counted in ``CaptionDataset.problems``
    skip_damaged : leave out captions that were cut off; for training, never for evaluation

    Raises DataError on an unknown name or split (listing those there are), a missing folder or
    file, or a damaged one.
    """
    name, colon, folder = spec.partition(":")
    if not colon or not folder:
        raise DataError(
            f"data set {spec!r} is not NAME:FOLDER; NAME is one of {', '.join(DATASETS)}"
        )
    if name not in DATASETS:
        raise DataError(f"unknown data set {name!r}; give one of {', '.join(DATASETS)}")
    reader = importlib.import_module(DATASETS[name])
    dataset: CaptionDataset = reader.read(
        name, Path(folder).expanduser(), split, strict=strict, skip_damaged=skip_damaged
    )
    return dataset
