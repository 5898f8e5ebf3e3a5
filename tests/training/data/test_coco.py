from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, open_dataset

CAPTIONS = {
    57870: ["A restaurant has modern wooden tables and chairs.", "A long restaurant table."],
    318556: ["A very clean and well decorated empty bathroom\n", "A blue and white bathroom."],
}


def annotation_file(path: Path, part: str, prefix: str) -> Path:
    """A caption file with every field that COCO's have."""
    content = {
        "info": {"description": "COCO Dataset", "version": "1.0", "year": 2014},
        "images": [
            {
                "license": 5, "file_name": f"{prefix}{number:012}.jpg",
                "coco_url": f"http://images.cocodataset.org/{part}/{number:012}.jpg",
                "height": 480, "width": 640, "date_captured": "2013-11-14 16:28:13",
                "flickr_url": "http://farm4.staticflickr.com/x.jpg", "id": number,
            }
            for number in CAPTIONS
        ],
        "licenses": [{"url": "http://x", "id": 5, "name": "Attribution License"}],
        "annotations": [
            {"image_id": number, "id": 48 + number + i, "caption": text}
            for i in range(2)
            for number, texts in CAPTIONS.items()
            for text in texts[i : i + 1]
        ],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    annotation_file(
        tmp_path / "annotations/captions_train2014.json", "train2014", "COCO_train2014_"
    )
    annotation_file(tmp_path / "annotations/captions_val2017.json", "val2017", "")
    for number in CAPTIONS:
        for path in (f"train2014/COCO_train2014_{number:012}.jpg", f"val2017/{number:012}.jpg"):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(b"not decoded here")
    return tmp_path


def test_it_reads_what_pycocotools_reads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    coco = pycocotools.COCO(str(folder / "annotations/captions_train2014.json"))
    data = open_dataset(f"coco:{folder}", "train2014", strict=True)
    assert [image.id for image in data] == [i["file_name"] for i in coco.loadImgs(coco.getImgIds())]
    for image, number in zip(data, coco.getImgIds(), strict=True):
        assert list(image.captions) == [a["caption"].strip() for a in coco.imgToAnns[number]]
        assert image.path == folder / "train2014" / image.id


def test_years_may_be_left_out_where_there_is_one(folder: Path) -> None:
    assert dataset_splits(f"coco:{folder}") == ["train2014", "val2017"]
    assert open_dataset(f"coco:{folder}", "val")[0].id == "000000057870.jpg"
    (folder / "annotations/captions_val2014.json").write_text("{}")
    with pytest.raises(DataError, match=r"unknown split 'val'.* train2014, val2014, val2017"):
        open_dataset(f"coco:{folder}", "val")


def test_pictures_below_images_are_found_and_missing_ones_counted(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "train2014").rename(folder / "images/train2014")
    (folder / "images/train2014/COCO_train2014_000000057870.jpg").unlink()
    data = open_dataset(f"coco:{folder}", "train")
    assert [image.id for image in data] == ["COCO_train2014_000000318556.jpg"]
    assert data.problems.missing_files == ("COCO_train2014_000000057870.jpg",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a caption file of COCO: .*"),
        (b'{"images": [', "not a caption file of COCO: .*truncated"),
        (b'{"images": []}', "missing required field `annotations`"),
        (b'{"images": [{"id": "x"}], "annotations": []}', r"Expected `int`, got `str`.*images"),
        (b"[" * 100_000, "not a caption file of COCO"),
        (b'{"images": [{"id": 1, "file_name": "\xff"}], "annotations": []}', "not a caption file"),
        (
            b'{"images": [], "annotations": [{"image_id": 7, "caption": "x"}]}',
            "caption of image 7, which it does not list",
        ),
        (
            b'{"images": [{"id": 1, "file_name": "../a.jpg"}], "annotations": []}',
            "names '../a.jpg'; give file names inside",
        ),
    ],
)
def test_damaged_files_are_one_line(folder: Path, content: bytes, message: str) -> None:
    (folder / "annotations/captions_val2017.json").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"coco:{folder}", "val2017")
    assert "\n" not in str(caught.value)
