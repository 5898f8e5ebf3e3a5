from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import CaptionDataset, CaptionedImage, open_dataset
from edgecap.training.data import checks as kinds
from edgecap.training.data.checks import check_splits


@pytest.fixture
def folder(tmp_path: Path, write_picture) -> Path:
    """Five sound pictures: a, b, c in train, d in val, e in test."""
    rows = ["image,caption_index,caption"]
    for seed, name in enumerate("abcde"):
        write_picture(tmp_path / f"images/{name}.jpg", seed)
        rows.append(f"{name}.jpg,0,Picture {name} of five")
    (tmp_path / "captions.csv").write_text("\n".join(rows) + "\n")
    lists(tmp_path, train="abc", val="d", test="e")
    return tmp_path


def lists(folder: Path, **splits: str) -> None:
    for split, names in splits.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}.jpg\n" for name in names))


def opened(folder: Path, *splits: str) -> list[CaptionDataset]:
    return [open_dataset(f"captions-csv:{folder}", s) for s in splits or ("train", "val", "test")]


def usable(report: kinds.CheckReport) -> list[list[str]]:
    return [[image.id[0] for image in dataset] for dataset in report.usable]


def test_sound_data_has_no_problem(folder: Path) -> None:
    report = check_splits(opened(folder))
    assert report.problems == {}
    assert report.pictures == 5
    assert usable(report) == [["a", "b", "c"], ["d"], ["e"]]
    report.raise_if_leaking()
    report.raise_if_problems()


def test_missing_and_undecodable_pictures(folder: Path) -> None:
    (folder / "images/a.jpg").unlink()
    data = (folder / "images/b.jpg").read_bytes()
    (folder / "images/b.jpg").write_bytes(data[: len(data) // 2])
    (folder / "images/d.jpg").write_bytes(b"")
    (folder / "images/e.jpg").write_text("<html>404</html>")
    report = check_splits(opened(folder))
    assert report.problems == {kinds.MISSING: 1, kinds.UNDECODABLE: 3}
    assert report.examples[kinds.MISSING] == ("captions-csv train: a.jpg",)
    assert "train: b.jpg: " in report.examples[kinds.UNDECODABLE][0]
    assert "cut short" in report.examples[kinds.UNDECODABLE][0]
    assert usable(report) == [["c"], [], []]
    report.raise_if_leaking()
    with pytest.raises(DataError, match=r"1 images without a file \(such as .*a\.jpg\), 3 images"):
        report.raise_if_problems()
    undecoded = check_splits(opened(folder), decode=False)
    assert undecoded.problems == {kinds.MISSING: 1}


def test_captions_empty_damaged_or_in_another_script(folder: Path) -> None:
    (folder / "captions.csv").write_text(
        "image,caption_index,caption\n"
        "a.jpg,0,A group of\na.jpg,1,Two dogs run\nb.jpg,0,A\nc.jpg,0,一只狗在草地上奔跑\n"
        'c.jpg,1,""\nd.jpg,0,""\ne.jpg,0,Sound enough\n'
    )
    report = check_splits(opened(folder, "train", "test"))
    assert report.problems == {kinds.EMPTY: 1, kinds.DAMAGED: 2}
    assert report.counts[kinds.OTHER_SCRIPTS] == 1
    assert report.examples[kinds.DAMAGED][0] == "captions-csv train: a.jpg: 'A group of'"
    assert usable(report) == [["a", "c"], ["e"]]
    assert report.usable[0][0].captions == ("Two dogs run",)
    with pytest.raises(DataError, match="no image with file and captions"):
        opened(folder, "val")


def test_the_same_id_in_two_splits_leaks(folder: Path) -> None:
    lists(folder, val="dab")
    for options in ({}, {"decode": False}, {"decode": False, "compare": False}):
        report = check_splits(opened(folder), **options)
        assert report.leaks == {kinds.LEAKING_IDS: 2, kinds.LEAKING_PICTURES: 2}
        # A picture on two sides stays on the later one.
        assert usable(report) == [["c"], ["d", "a", "b"], ["e"]]
    with pytest.raises(DataError, match=r"2 ids in two splits \(such as train: a\.jpg = val: a"):
        report.raise_if_leaking()


def test_the_same_bytes_under_another_name_leak_even_from_another_set(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "images").mkdir()
    (other / "images/z.jpg").write_bytes((folder / "images/b.jpg").read_bytes())
    (other / "captions.csv").write_text("image,caption_index,caption\nz.jpg,0,A copy of it\n")
    lists(other, test="z", train="z")
    datasets = [*opened(folder, "train"), *opened(other, "test")]
    report = check_splits(datasets)
    assert report.problems == {kinds.LEAKING_PICTURES: 1}
    assert report.examples[kinds.LEAKING_PICTURES] == ("train: b.jpg = test: z.jpg",)
    assert check_splits(datasets, compare=False).problems == {}
    # On one side it is a mere copy, and roles say what one side is.
    for together in (
        check_splits([*opened(folder, "train"), *opened(other, "train")]),
        check_splits(datasets, roles=["train", "train"]),
    ):
        assert together.problems == {kinds.SAME_PICTURES: 1}
        assert usable(together) == [["a", "b", "c"], []]
    with pytest.raises(DataError, match="1 roles for 2 data sets"):
        check_splits(datasets, roles=["train"])


def test_equal_names_in_two_folders_are_two_pictures(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, write_picture
) -> None:
    other = tmp_path_factory.mktemp("other")
    write_picture(other / "images/a.jpg", 99)
    (other / "captions.csv").write_text("image,caption_index,caption\na.jpg,0,Another a here\n")
    lists(other, val="a")
    assert check_splits([*opened(folder, "train"), *opened(other, "val")]).problems == {}


def test_copies_and_repeated_ids_within_a_split(folder: Path) -> None:
    (folder / "images/c.jpg").write_bytes((folder / "images/a.jpg").read_bytes())
    (train,) = opened(folder, "train")
    twice = replace(train, images=(*train.images, train[1]))
    report = check_splits([twice])
    assert report.problems == {kinds.SAME_PICTURES: 1, kinds.SAME_IDS: 1}
    assert report.examples[kinds.SAME_PICTURES] == ("captions-csv train: c.jpg = a.jpg",)
    assert usable(report) == [["a", "b"]]


def test_regions_of_one_picture_are_no_copies_but_leak_together(folder: Path) -> None:
    path = folder / "images/a.jpg"
    boxes = [(0, 0, 8, 8), (8, 8, 8, 8), (40, 0, 8, 8)]
    regions = tuple(
        CaptionedImage(f"a.jpg#{n}", path, ("A patch of colour",), box=box)
        for n, box in enumerate(boxes)
    )
    train = CaptionDataset("own", folder, "train", regions)
    report = check_splits([train])
    assert report.problems == {kinds.BOXES: 1}
    assert "(40, 0, 8, 8) in (32, 24)" in report.examples[kinds.BOXES][0]
    assert [image.id for image in report.usable[0]] == ["a.jpg#0", "a.jpg#1"]
    val = CaptionDataset("own", folder, "val", regions[1:2])
    leaking = check_splits([replace(train, images=regions[:1]), val])
    assert leaking.leaks == {kinds.LEAKING_PICTURES: 1}


def test_pictures_inside_shards_are_checked(tmp_path: Path, write_picture) -> None:
    import tarfile

    write_picture(tmp_path / "0.jpg", 0)
    (tmp_path / "1.jpg").write_bytes(b"no picture")
    (tmp_path / "c.txt").write_text("A caption of three")
    for split, names in (("train", ("0", "1")), ("val", ("0",))):
        with tarfile.open(tmp_path / f"{split}-0.tar", "w") as tar:
            for name in names:
                tar.add(tmp_path / f"{name}.jpg", f"{split}{name}.jpg")
                tar.add(tmp_path / "c.txt", f"{split}{name}.txt")
    report = check_splits([open_dataset(f"webdataset:{tmp_path}", s) for s in ("train", "val")])
    assert report.problems == {kinds.UNDECODABLE: 1, kinds.LEAKING_PICTURES: 1}
    assert [len(dataset) for dataset in report.usable] == [0, 1]


def test_it_loads_without_torch() -> None:
    code = "import sys, edgecap.training.data.checks as c; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_opencv_speaks_again_whatever_the_threads_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    logging = getattr(cv2.utils, "logging", cv2)
    before = logging.getLogLevel()
    read = kinds._read

    def leave_quiet(image: CaptionedImage, decode: bool) -> kinds._Facts:
        # What two threads do that silence it at once and restore the other's silence.
        logging.setLogLevel(0)
        return read(image, decode)

    monkeypatch.setattr(kinds, "_read", leave_quiet)
    logging.setLogLevel(4)
    try:
        check_splits(opened(folder))
        assert logging.getLogLevel() == 4
    finally:
        logging.setLogLevel(before)


def test_real_splits_do_not_leak_and_an_overlaid_picture_is_not_seen(shared: Path) -> None:
    spec = f"flickr8k:{shared / 'data/flickr8k'}"
    datasets = [open_dataset(spec, split) for split in ("unassigned", "test")]
    train = open_dataset(spec, "train")
    # This photograph's lower half is overlaid by another: whole as a file, wrong as a picture.
    overlaid = [image for image in train if image.id == "1798209205_77dbf525b0.jpg"]
    assert len(overlaid) == 1
    report = check_splits([replace(train, images=tuple(overlaid)), *datasets])
    assert report.pictures == 1 + 91 + 500
    assert report.leaks == {}
    assert kinds.UNDECODABLE not in report.problems
    assert report.problems == {kinds.DAMAGED: 8}
