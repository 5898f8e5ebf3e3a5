from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, load_pixels, open_dataset

NUMBERS = range(1, 41)


def region(number: int, key: int, box: tuple[int, int, int, int], phrase: str) -> dict[str, Any]:
    x, y, width, height = box
    return {
        "region_id": key, "image_id": number, "x": x, "y": y, "width": width, "height": height,
        "phrase": phrase, "synsets": [],
    }  # fmt: skip


def regions(number: int) -> list[dict[str, Any]]:
    return [
        region(number, 10 * number, (4, 3, 9, 8), "the clock is green in colour"),
        region(number, 10 * number + 1, (20, 10, 50, 50), "shade is along the street "),
    ]


@pytest.fixture
def folder(tmp_path: Path, write_picture) -> Path:
    data = []
    for number in NUMBERS:
        part = "VG_100K" if number % 2 else "VG_100K_2"
        write_picture(tmp_path / part / f"{number}.jpg", number)
        data.append(
            {
                "width": 32, "height": 24, "image_id": number, "coco_id": None, "flickr_id": None,
                "url": f"https://cs.stanford.edu/people/rak248/{part}/{number}.jpg",
            }
        )  # fmt: skip
    (tmp_path / "image_data.json").write_text(json.dumps(data))
    described = [{"regions": regions(number), "id": number} for number in NUMBERS]
    (tmp_path / "region_descriptions.json").write_text(json.dumps(described))
    return tmp_path


def test_regions_are_cut_out_by_their_box(folder: Path) -> None:
    data = open_dataset(f"visual-genome-regions:{folder}", "all", strict=True)
    assert len(data) == 80
    first, second = data[0], data[1]
    assert (first.id, first.box) == ("1.jpg#10", (4, 3, 9, 8))
    assert first.captions == ("the clock is green in colour",)
    assert load_pixels(first).shape == (8, 9, 3)
    # This one reaches over the edge of the 32 x 24 picture.
    assert second.box == (20, 10, 12, 14)
    assert second.captions == ("shade is along the street",)
    assert load_pixels(second).shape == (14, 12, 3)
    assert data[2].path == folder / "VG_100K_2/2.jpg"


def test_regions_of_a_picture_are_joined(folder: Path) -> None:
    data = open_dataset(f"visual-genome:{folder}", "all")
    assert len(data) == 40
    assert data[0].captions == ("the clock is green in colour", "shade is along the street")
    assert data[0].box is None


def test_a_picture_is_on_one_side_with_all_its_regions(folder: Path) -> None:
    spec = f"visual-genome-regions:{folder}"
    assert dataset_splits(spec) == ["train", "val", "test"]
    sides = [{i.path.name for i in open_dataset(spec, split)} for split in ("train", "val", "test")]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 40
    whole = {i.path.name for i in open_dataset(f"visual-genome:{folder}", "train")}
    assert whole == sides[0]
    assert {i.path.name for i in open_dataset(f"{spec}?seed=5", "train")} != sides[0]


def test_version_1_0_and_boxes_outside(folder: Path) -> None:
    outside = region(1, 12, (32, 0, 5, 5), "nothing to be seen")
    described = [{"regions": [*regions(1), outside], "image_id": 1}]
    (folder / "region_descriptions.json").write_text(json.dumps(described))
    data = open_dataset(f"visual-genome-regions:{folder}", "all")
    assert len(data) == 2
    assert data.problems.bad_boxes == ("1.jpg#12",)
    assert "1 boxes outside their picture (such as '1.jpg#12')" in str(data.problems)
    with pytest.raises(DataError, match="boxes outside"):
        open_dataset(f"visual-genome-regions:{folder}", "all", strict=True)


def test_pictures_in_one_folder(folder: Path) -> None:
    (folder / "images").mkdir()
    for part in ("VG_100K", "VG_100K_2"):
        for path in (folder / part).iterdir():
            path.rename(folder / "images" / path.name)
        (folder / part).rmdir()
    assert len(open_dataset(f"visual-genome:{folder}", "all", strict=True)) == 40


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("region_descriptions.json", "[{}]", "missing required field `regions`"),
        ("region_descriptions.json", '[{"id": 99, "regions": []}]', "image 99, which image_data"),
        ("image_data.json", "{}", r"Expected `array`, got `object`"),
        (
            "image_data.json",
            '[{"image_id": 1, "url": "", "width": 1, "height": 1}]',
            "gives image 1 no address",
        ),
        (
            "image_data.json",
            '[{"image_id": 1, "url": "https://x/VG_100K/..", "width": 1, "height": 1}]',
            "names '..'",
        ),
    ],
)
def test_damaged_files(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"visual-genome:{folder}", "all")
    assert "\n" not in str(caught.value)
