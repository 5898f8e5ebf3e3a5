from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, open_dataset

ROOT = Path(__file__).resolve().parents[3]
SPLITS = ("train", "val", "test")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(b"not decoded here")
    return tmp_path


def rows(count: int = 60) -> str:
    lines = [f'{i % count}.jpg,"Caption {i}, of {i % count}"\n' for i in range(2 * count)]
    return "image,caption\n" + "".join(lines)


def test_rows_of_a_picture_are_its_captions_and_csv_equals_jsonl(folder: Path) -> None:
    (folder / "captions.csv").write_text(rows())
    from_csv = {s: open_dataset(f"own:{folder}", s, strict=True).references for s in SPLITS}
    assert from_csv["train"]["0.jpg"] == ["Caption 0, of 0", "Caption 60, of 0"]
    assert sum(map(len, from_csv.values())) == len(open_dataset(f"own:{folder}", "all")) == 60
    (folder / "captions.csv").unlink()
    lines = []
    for number in range(60):
        pair = [f"Caption {number}, of {number}", f"Caption {number + 60}, of {number}"]
        if number % 2:
            lines.append({"image": f"{number}.jpg", "caption": pair})
        else:
            lines += [{"image": f"{number}.jpg", "caption": text, "by": "me"} for text in pair]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert {s: open_dataset(f"own:{folder}", s).references for s in SPLITS} == from_csv


def test_a_picture_keeps_its_side_when_others_come(folder: Path) -> None:
    (folder / "captions.csv").write_text(rows(30))
    before = {s: set(open_dataset(f"own:{folder}", s).references) for s in SPLITS}
    (folder / "captions.csv").write_text(rows(60))
    for split in SPLITS:
        assert before[split] <= set(open_dataset(f"own:{folder}", split).references)
    other = set(open_dataset(f"own:{folder}?seed=7", "train").references)
    assert other != set(open_dataset(f"own:{folder}", "train").references)


def test_a_split_column_is_kept(folder: Path) -> None:
    (folder / "captions.csv").write_text(
        "split,caption,image\nday,A red car,1.jpg\nnight,A dark road,2.jpg\nday,One car,1.jpg\n"
    )
    assert dataset_splits(f"own:{folder}") == ["day", "night"]
    assert open_dataset(f"own:{folder}", "day")[0].captions == ("A red car", "One car")
    with pytest.raises(DataError, match=r"unknown split 'train'.* has day, night, all"):
        open_dataset(f"own:{folder}", "train")


def test_pictures_lie_in_images_or_below_and_the_table_may_have_another_name(folder: Path) -> None:
    for name in ("images/in/a.jpg", "b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    (folder / "mine.csv").write_text("image,caption\nin/a.jpg,A red car\nb.jpg,A blue car\n")
    data = open_dataset(f"own:{folder}?table=mine.csv", "all", strict=True)
    assert [image.path for image in data] == [folder / "images/in/a.jpg", folder / "b.jpg"]


def test_a_side_that_no_picture_fell_to_is_not_listed(folder: Path) -> None:
    (folder / "captions.csv").write_text(rows(2))
    assert dataset_splits(f"own:{folder}") == ["train"]
    with pytest.raises(DataError, match=r"split 'val' of .* has no image"):
        open_dataset(f"own:{folder}", "val")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("captions.csv", "file,text\n", "header .* is file, text; it must have image, caption"),
        ("captions.csv", "image,caption\n1.jpg,a car, red\n", "line 2 .* double quotes"),
        ("captions.csv", "image,caption\n1.jpg\n", "line 2 "),
        ("captions.csv", 'image,caption\n1.jpg,"x\n', "unexpected end of data"),
        ("captions.csv", "image,caption\n,x y\n", "line 2 .* names no image"),
        ("captions.csv", "image,caption\n../1.jpg,x y\n", r"names '\.\./1\.jpg'"),
        ("captions.csv", "image,caption,split\n1.jpg,x y,a\n1.jpg,x z,b\n", "one split"),
        ("captions.csv", "image,caption,split\n1.jpg,x y,a\n2.jpg,x z,\n", "to all or to none"),
        ("captions.jsonl", '{"image": "1.jpg"}\n', "line 1 .*missing required field `caption`"),
        ("captions.jsonl", '{"image": "1.jpg", "caption": "x"}\nnope\n', "line 2 .*malformed"),
        ("captions.jsonl", '{"image": "1.jpg", "caption": [1]}\n', "line 1 .*Expected `str`"),
        ("train.txt", "1.jpg\n", "none of captions.csv"),
    ],
)
def test_damaged_tables(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"own:{folder}", "all")
    assert "\n" not in str(caught.value)


def test_lists_of_another_layout_are_not_overlooked(folder: Path) -> None:
    (folder / "captions.csv").write_text("image,caption_index,caption\n1.jpg,0,A red car\n")
    (folder / "test.txt").write_text("1.jpg\n")
    with pytest.raises(DataError, match=r"splits in test\.txt; open it as captions-csv:FOLDER"):
        open_dataset(f"own:{folder}", "train")


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        for file, head in (("captions.csv", b"image,caption\n"), ("captions.jsonl", b"")):
            Path(name, file).write_bytes(head + content)
            with pytest.raises(DataError) as caught:  # no such picture can exist
                open_dataset(f"own:{name}?table={file}", "all")
            assert "\n" not in str(caught.value)


def test_real_driving_descriptions(shared: Path) -> None:
    data = open_dataset(f"own:{shared / 'data/driving_drivelm'}", "all", strict=True)
    assert len(data) == 9
    assert sum(len(image.captions) for image in data) == 43


def test_the_example_runs() -> None:
    pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")
    done = subprocess.run(
        [sys.executable, "examples/own_data.py"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "captions.csv: " in done.stdout
    assert "captions.jsonl: " in done.stdout
    assert "copies of a picture in a split: 1" in done.stdout
