from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, open_dataset

PLACES = (("train2014", "train", 9), ("val2014", "restval", 11), ("val2014", "val", 12),
          ("val2014", "test", 391895))  # fmt: skip
RAW = "A man with a red helmet on a small moped on a dirt road. "


def entry(filepath: str, split: str, number: int) -> dict[str, Any]:
    """An image with every field of dataset_coco.json."""
    return {
        "filepath": filepath, "sentids": [number * 10], "imgid": number, "split": split,
        "filename": f"COCO_{filepath}_{number:012}.jpg", "cocoid": number,
        "sentences": [{
            "tokens": RAW.lower().replace(".", "").split(), "raw": RAW, "imgid": number,
            "sentid": number * 10,
        }],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = [entry(*place) for place in PLACES]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    for image in images:
        path = tmp_path / image["filepath"] / image["filename"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not decoded here")
    return tmp_path


def test_every_image_is_in_its_split_with_raw_captions(folder: Path) -> None:
    spec = f"coco-karpathy:{folder}"
    assert dataset_splits(spec) == ["train", "restval", "val", "test"]
    for filepath, split, number in PLACES:
        (image,) = open_dataset(spec, split, strict=True)
        assert image.path == folder / filepath / f"COCO_{filepath}_{number:012}.jpg"
        assert image.captions == (RAW.strip(),)
    assert len(open_dataset(spec, "all")) == 4


def test_train_and_restval_together(folder: Path) -> None:
    data = open_dataset(f"coco-karpathy:{folder}", "train+restval")
    assert [image.path.parent.name for image in data] == ["train2014", "val2014"]
    with pytest.raises(DataError, match=r"'train\+rest'.* has restval, test, train, val"):
        open_dataset(f"coco-karpathy:{folder}", "train+rest")


def test_tokens_serve_where_raw_is_left_out_and_pictures_may_lie_in_images(folder: Path) -> None:
    image = entry("train2014", "train", 9)
    del image["sentences"][0]["raw"]
    (folder / "dataset_coco.json").write_text(json.dumps({"images": [image]}))
    (folder / "images").mkdir()
    for name in ("train2014", "val2014"):
        (folder / name).rename(folder / "images" / name)
    (found,) = open_dataset(f"coco-karpathy:{folder}", "train")
    assert found.captions == ("a man with a red helmet on a small moped on a dirt road",)
    assert found.path.is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filename": "../../a.jpg"}, "inside its folder only"),
        ({"filename": "/etc/passwd"}, "inside its folder only"),
        ({"filepath": ".."}, "inside its folder only"),
        ({"sentences": "x"}, "Expected `array`, got `str`"),
        ({"split": None}, "Expected `str`, got `null`"),
    ],
)
def test_damaged_and_unsafe_files(folder: Path, change: dict[str, Any], message: str) -> None:
    content = {"images": [entry("train2014", "train", 9) | change]}
    (folder / "dataset_coco.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"coco-karpathy:{folder}", "train")
    assert "\n" not in str(caught.value)
