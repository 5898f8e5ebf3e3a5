from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.metrics import read_hypotheses, read_references

ROW = {"image_id": 1, "caption": "a"}


def write(folder: Path, content: Any) -> Path:
    path = folder / "file.json"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"x.jpg": "a dog", "y.jpg": ""}, {"x.jpg": "a dog", "y.jpg": ""}),
        ({"x.jpg": ["a dog"]}, {"x.jpg": "a dog"}),
        ([{"image_id": 7, "caption": "a"}, {"image_id": "8", "caption": "b", "id": 3}],
         {"7": "a", "8": "b"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_hypotheses(tmp_path: Path, content: Any, wanted: dict[str, str]) -> None:
    assert read_hypotheses(write(tmp_path, content)) == wanted


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({"x.jpg": ["a dog", "dogs"]}, {"x.jpg": ["a dog", "dogs"]}),
        (
            {
                "info": {"year": 2014},
                "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 8}],
                "annotations": [
                    {"image_id": 8, "id": 1, "caption": "b"},
                    {"image_id": 7, "id": 2, "caption": "a"},
                    {"image_id": 8, "id": 3, "caption": "c"},
                ],
            },
            {"7": ["a"], "8": ["b", "c"]},
        ),
        ({"annotations": [ROW]}, {"1": ["a"]}),
    ],
)
def test_references(tmp_path: Path, content: Any, wanted: dict[str, list[str]]) -> None:
    assert read_references(write(tmp_path, content)) == wanted


def test_coco_tools_read_the_same(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    content = {
        "images": [{"id": 3}, {"id": 4}],
        "annotations": [
            {"id": n, "image_id": 3 + n % 2, "caption": f"caption {n}"} for n in range(5)
        ],
    }
    path = write(tmp_path, content)
    theirs = coco.COCO(str(path)).imgToAnns
    assert read_references(path) == {
        str(image): [row["caption"] for row in rows] for image, rows in sorted(theirs.items())
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ('{"a": "b",}', "line 1, column 1"),
        (b"\xff\xfe{", "UTF-8|JSON"),
        ("[" * 100_000, "nested|JSON"),
        ("3", "holds a number"),
        ("null", "holds null"),
        ('"a"', "holds a text"),
        (["a"], "entry 1 has no image_id"),
        ([{"image_id": True, "caption": "a"}], "entry 1 has no image_id"),
        ([ROW, {"image_id": 2}], "caption of image 2 .entry 2. is no text"),
        ([ROW, {"image_id": 2, "caption": None}], "caption of image 2"),
        ([ROW, ROW], "'1' has more than one caption .2 entries for 1 images"),
        ([ROW, {"image_id": "1", "caption": "b"}], "more than one caption"),
        ({"a": ["x", "y"]}, "'a' has no text"),
        ({"a": 3}, "'a' has no text"),
        ('{"a": "x", "a": "y"}', "'a' is there twice"),
        ({"images": [], "annotations": []}, "holds an annotation file"),
    ],
)
def test_bad_hypotheses(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        read_hypotheses(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ([ROW], "holds a list"),
        ("true", "holds true or false"),
        ({"a": "x"}, "'a' has no list of captions"),
        ({"a": ["x", 3]}, "'a' has no list of captions"),
        ({"a": ["x"], "b": []}, "1 of 2 images have no caption, such as 'b'"),
        ({"annotations": [{"caption": "a"}]}, "entry 1 has no image_id"),
        ({"annotations": [{"image_id": 1}]}, "caption of image 1"),
        ({"images": [{"id": 5}], "annotations": [ROW]}, "no caption, such as '5'"),
        ({"images": [5], "annotations": [ROW]}, "entry of images has no id"),
        ({"images": 5, "annotations": [ROW]}, "entry of images"),
    ],
)
def test_bad_references(tmp_path: Path, content: Any, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as caught:
        read_references(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_absent_files(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        for read in (read_hypotheses, read_references):
            with pytest.raises(DataError, match="cannot read"):
                read(path)
