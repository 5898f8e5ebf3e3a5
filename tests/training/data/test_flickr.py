"""Flickr8k and Flickr30k in each of their forms."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, open_dataset

CAPTIONS = {
    "1000268201_693b08cb0e.jpg": [
        "A child in a pink dress is climbing up a set of stairs in an entry way .",
        'A "little" girl , alone | outside',
    ],
    "1001773457_577c3a7d70.jpg": ["A black dog and a spotted dog are fighting", "Two dogs ; play"],
    "1002674143_1b742ab4b8.jpg": ["A girl paints .", "There is a girl with pigtails"],
}
NAMES = list(CAPTIONS)
SPLITS = dict(zip(("train", "val", "test"), NAMES, strict=True))


def pictures(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).write_bytes(b"not decoded here")


def token_file(path: Path, captions: dict[str, list[str]] = CAPTIONS) -> None:
    lines = [f"{name}#{i}\t{t}\n" for name, texts in captions.items() for i, t in enumerate(texts)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines))


def official_lists(folder: Path) -> None:
    for split, stem in (("train", "train"), ("val", "dev"), ("test", "test")):
        (folder / f"Flickr_8k.{stem}Images.txt").write_text(SPLITS[split] + "\n")


def token_8k(folder: Path) -> None:
    token_file(folder / "Flickr8k.token.txt")
    official_lists(folder)
    pictures(folder / "Flicker8k_Dataset")


def token_8k_as_unpacked(folder: Path) -> None:
    token_file(folder / "Flickr8k_text/Flickr8k.token.txt")
    official_lists(folder / "Flickr8k_text")
    pictures(folder / "Flickr8k_Dataset/Flicker8k_Dataset")


def kaggle_8k(folder: Path) -> None:
    with (folder / "captions.txt").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption"])
        writer.writerows([name, text] for name, texts in CAPTIONS.items() for text in texts)
    official_lists(folder)
    pictures(folder / "Images")


def karpathy(number: str, place: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        images = [
            {
                "sentids": [0], "imgid": 0, "filename": name, "split": split,
                "sentences": [{"tokens": text.split(), "raw": text, "imgid": 0, "sentid": 0}
                              for text in CAPTIONS[name]],
            }
            for split, name in SPLITS.items()
        ]  # fmt: skip
        content = {"images": images, "dataset": f"flickr{number}"}
        (folder / f"dataset_flickr{number}.json").write_text(json.dumps(content))
        pictures(folder / place)

    return write


def entities_lists(folder: Path) -> None:
    for split, name in SPLITS.items():
        (folder / f"{split}.txt").write_text(name.removesuffix(".jpg") + "\n")


def token_30k(folder: Path) -> None:
    token_file(folder / "results_20130124.token")
    entities_lists(folder)
    pictures(folder / "flickr30k-images")


def results_csv(folder: Path) -> None:
    lines = ["image_name| comment_number| comment"]
    for name, texts in CAPTIONS.items():
        lines += [f"{name}| {i}| {text}" for i, text in enumerate(texts)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    entities_lists(folder)
    pictures(folder / "flickr30k_images")


def captions_csv(folder: Path) -> None:
    with (folder / "captions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption_index", "caption"])
        writer.writerows([n, i, t] for n, texts in CAPTIONS.items() for i, t in enumerate(texts))
    for split, name in SPLITS.items():
        (folder / f"{split}.txt").write_text(name + "\n")
    pictures(folder / "images")


FORMS = {
    "8k captions.csv": ("flickr8k", captions_csv),
    "8k token": ("flickr8k", token_8k),
    "8k token unpacked": ("flickr8k", token_8k_as_unpacked),
    "8k kaggle": ("flickr8k", kaggle_8k),
    "8k karpathy": ("flickr8k", karpathy("8k", "Images")),
    "30k captions.csv": ("flickr30k", captions_csv),
    "30k token": ("flickr30k", token_30k),
    "30k results.csv": ("flickr30k", results_csv),
    "30k karpathy": ("flickr30k", karpathy("30k", "flickr30k_images/flickr30k_images")),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    name, write = FORMS[form]
    write(tmp_path)
    assert dataset_splits(f"{name}:{tmp_path}") == ["train", "val", "test"]
    for split, picture in SPLITS.items():
        (image,) = open_dataset(f"{name}:{tmp_path}", split, strict=True)
        assert image.id == picture
        assert image.captions == tuple(CAPTIONS[picture])
        assert image.path.is_file()


def test_all_holds_pictures_without_a_split_and_the_stray_entry_has_no_file(tmp_path: Path) -> None:
    token_8k(tmp_path)
    # This name is in the published file and in no list.
    token_file(
        tmp_path / "Flickr8k.token.txt", CAPTIONS | {"2258277193_586949ec62.jpg.1": ["A dog runs"]}
    )
    data = open_dataset(f"flickr8k:{tmp_path}", "all")
    assert [image.id for image in data] == NAMES
    assert data.problems.missing_files == ("2258277193_586949ec62.jpg.1",)


def test_without_lists_there_is_only_all_and_it_says_which_lists(tmp_path: Path) -> None:
    kaggle_8k(tmp_path)
    for path in tmp_path.glob("Flickr_8k.*"):
        path.unlink()
    assert dataset_splits(f"flickr8k:{tmp_path}") == ["all"]
    assert len(open_dataset(f"flickr8k:{tmp_path}", "all")) == 3
    with pytest.raises(DataError, match=r"'train'.* has all; its lists \(Flickr_8k\.trainImages"):
        open_dataset(f"flickr8k:{tmp_path}", "train")


def test_the_line_of_results_csv_without_its_second_bar(tmp_path: Path) -> None:
    results_csv(tmp_path)
    with (tmp_path / "results.csv").open("a") as file:
        file.write("2199200615.jpg| 4   A dog runs across the grass .\n")
    (tmp_path / "flickr30k_images/2199200615.jpg").write_bytes(b"")
    data = open_dataset(f"flickr30k:{tmp_path}", "all")
    assert data[-1].captions == ("A dog runs across the grass .",)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("flickr8k", "Flickr8k.token.txt", "a.jpg#0 no tab\n", "line 1 .* a tab and a caption"),
        ("flickr8k", "Flickr8k.token.txt", "a.jpg#0\tx\nb.jpg\tx\n", "line 2"),
        ("flickr8k", "Flickr8k.token.txt", "../a.jpg#0\tx y\n", "names '../a.jpg'"),
        ("flickr8k", "captions.txt", "name,text\na.jpg,x\n", "header .* is name, text"),
        ("flickr8k", "captions.txt", "image,caption\na.jpg\n", "line 2"),
        ("flickr8k", "captions.txt", 'image,caption\na.jpg,"x\n', "unexpected end of data"),
        ("flickr8k", "captions.txt", "", "header .* is nothing"),
        ("flickr30k", "results.csv", "image|comment\n", "header .*must be image_name"),
        (
            "flickr30k", "results.csv", "image_name| comment_number| comment\na.jpg\n",
            "line 2 .*between bars",
        ),
        (
            "flickr30k", "results.csv", "image_name| comment_number| comment\na.jpg| x| y\n",
            "line 2",
        ),
        ("flickr30k", "dataset_flickr30k.json", "{", "not a split file of Karpathy's"),
    ],
)  # fmt: skip
def test_damaged_tables(tmp_path: Path, name: str, file: str, content: str, message: str) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"{name}:{tmp_path}", "all")
    assert "\n" not in str(caught.value)


def test_the_real_captions_survive_the_official_form(shared: Path, tmp_path: Path) -> None:
    """Val and test of the real set, written as the token file and lists have them."""
    real = shared / "data/flickr8k"
    captions: dict[str, list[str]] = {}
    expected: dict[str, dict[str, list[str]]] = {}
    for split, stem in (("val", "dev"), ("test", "test")):
        data = open_dataset(f"flickr8k:{real}", split)
        expected[split] = data.references
        captions |= data.references
        names = "".join(f"{image.id}\n" for image in data)
        (tmp_path / f"Flickr_8k.{stem}Images.txt").write_text(names)
    token_file(tmp_path / "Flickr8k.token.txt", captions)
    (tmp_path / "Flicker8k_Dataset").symlink_to(real / "images")
    for split, references in expected.items():
        assert open_dataset(f"flickr8k:{tmp_path}", split, strict=True).references == references
