from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import open_dataset

HEADER = "image,caption_index,caption\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two photographs, the second with one good and one cut caption, and two splits."""
    (tmp_path / "images").mkdir()
    for name in ("one.jpg", "two.jpg"):
        (tmp_path / "images" / name).write_bytes(b"not decoded here")
    (tmp_path / "captions.csv").write_text(
        HEADER
        + 'one.jpg,1,"second, with a comma"\none.jpg,0,"first ""quoted"""\n'
        + "two.jpg,0,A group of\ntwo.jpg,1,Two dogs run .\n"
    )
    (tmp_path / "train.txt").write_text("one.jpg\ntwo.jpg\n")
    (tmp_path / "val.txt").write_text("two.jpg\n\n")
    return tmp_path


def test_records_are_in_the_order_of_the_split(folder: Path) -> None:
    data = open_dataset(f"flickr8k:{folder}", "train")
    assert [image.id for image in data] == ["one.jpg", "two.jpg"]
    assert data[0].path == folder / "images" / "one.jpg"
    assert data[0].captions == ('first "quoted"', "second, with a comma")
    assert data.references["two.jpg"] == ["A group of", "Two dogs run ."]
    assert (data.name, data.split, len(data)) == ("flickr8k", "train", 2)


def test_damaged_captions_are_flagged_and_left_out_when_asked(folder: Path) -> None:
    kept = open_dataset(f"flickr8k:{folder}", "val")
    assert kept[0].captions == ("A group of", "Two dogs run .")
    assert kept.problems.damaged_captions == (("two.jpg", "A group of"),)
    skipped = open_dataset(f"flickr8k:{folder}", "val", skip_damaged=True)
    assert skipped[0].captions == ("Two dogs run .",)


def test_incomplete_images_are_left_out_and_counted_or_an_error(folder: Path) -> None:
    (folder / "images" / "three.jpg").write_bytes(b"")
    (folder / "train.txt").write_text("one.jpg\nthree.jpg\ntwo.jpg\n")
    (folder / "images" / "one.jpg").unlink()
    data = open_dataset(f"captions-csv:{folder}", "train")
    assert [image.id for image in data] == ["two.jpg"]
    assert data.problems.missing_files == ("one.jpg",)
    assert data.problems.without_captions == ("three.jpg",)
    assert "1 images without a file (such as 'one.jpg')" in str(data.problems)
    with pytest.raises(DataError, match=r"one\.jpg.*three\.jpg"):
        open_dataset(f"captions-csv:{folder}", "train", strict=True)


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("flickr8k", "train", "NAME:FOLDER; NAME is one of flickr8k"),
        ("flickr8k:", "train", "NAME:FOLDER"),
        ("flickr9k:{folder}", "train", "'flickr9k'; give one of flickr8k, coco-captions"),
        ("flickr8k:{folder}/nowhere", "train", "no folder"),
        ("flickr8k:{folder}", "test", "unknown split 'test'.* has train, val"),
        ("flickr8k:{folder}", "../train", "unknown split"),
        ("flickr8k:{folder}/images", "train", "none: it has no SPLIT.txt"),
    ],
)
def test_wrong_names_list_what_there_is(folder: Path, spec: str, split: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(spec.format(folder=folder), split)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "header .* is nothing; it must have image, caption_index, caption"),
        (b"image,text\none.jpg,x\n", "header .* is image, text"),
        (HEADER.encode() + b"one.jpg,first,x\n", "line 2 .*whole number"),
        (HEADER.encode() + b"one.jpg,0\n", "line 2"),
        (HEADER.encode() + b'one.jpg,0,"open\n', "unexpected end"),
        (HEADER.encode() + b"one.jpg,0,\xff\n", "UTF-8"),
    ],
)
def test_damaged_caption_files(folder: Path, content: bytes, message: str) -> None:
    (folder / "captions.csv").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"flickr8k:{folder}", "train")
    assert "\n" not in str(caught.value)


def test_missing_captions_file_and_empty_images(folder: Path) -> None:
    for image in (folder / "images").iterdir():
        image.unlink()
    with pytest.raises(DataError, match="no image with file and captions: 2 images without a file"):
        open_dataset(f"flickr8k:{folder}", "train")
    (folder / "captions.csv").unlink()
    with pytest.raises(DataError, match=r"no file .*captions\.csv"):
        open_dataset(f"flickr8k:{folder}", "train")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a\\b.jpg"])
def test_a_split_cannot_leave_the_folder(folder: Path, name: str) -> None:
    (folder / "val.txt").write_text(f"two.jpg\n{name}\n")
    with pytest.raises(DataError, match="inside images/ only"):
        open_dataset(f"flickr8k:{folder}", "val")


def test_a_byte_order_mark_and_extra_columns_are_fine(folder: Path) -> None:
    text = "\ufeffimage,caption_index,caption,style\r\ntwo.jpg,0,Two dogs run .,plain\r\n"
    (folder / "captions.csv").write_bytes(text.encode())
    assert open_dataset(f"flickr8k:{folder}", "val")[0].captions == ("Two dogs run .",)


@pytest.mark.parametrize(
    ("spec", "split", "images", "captions"),
    [
        ("flickr8k:flickr8k", "train", 5999, 29995),
        ("flickr8k:flickr8k", "val", 1000, 5000),
        ("flickr8k:flickr8k", "test", 500, 2500),
        ("flickr8k:flickr8k", "unassigned", 91, 455),
        ("coco-captions:coco_captions", "val", 289, 1445),
        ("captions-csv:coco_captions", "train", 80, 400),
        ("flickr8k:coco_captions_more", "train", 1839, 8344),
    ],
)
def test_real_data_sets(shared: Path, spec: str, split: str, images: int, captions: int) -> None:
    name, folder = spec.split(":")
    data = open_dataset(f"{name}:{shared / 'data' / folder}", split, strict=True)
    assert len(data) == images
    assert sum(len(image.captions) for image in data) == captions
    assert all(image.captions for image in data)


def test_the_damaged_captions_of_flickr8k_are_found_and_no_others(shared: Path) -> None:
    damaged = [
        text
        for split in ("train", "val", "test", "unassigned")
        for _, text in open_dataset(
            f"flickr8k:{shared / 'data/flickr8k'}", split
        ).problems.damaged_captions
    ]
    assert sorted(damaged, key=len)[:3] == ["A", "a", "A group of"]
    assert len(damaged) == 8
