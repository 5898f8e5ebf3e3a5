from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.data import dataset_splits, open_dataset

MAPPING = """\
n01440764 tench, Tinca tinca
n01443537 goldfish, Carassius auratus
n02123045 tabby, tabby cat
n02504458 African elephant, Loxodonta africana
"""
CLASSES = [line.split()[0] for line in MAPPING.splitlines()]


def write(folder: Path) -> Path:
    for split, count in (("train", 3), ("val", 1)):
        for name in reversed(CLASSES):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                (folder / split / name / f"{name}_{i}.JPEG").write_bytes(b"not decoded here")
    (folder / "val" / CLASSES[0] / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "LOC_synset_mapping.txt").write_text(MAPPING)
    return write(tmp_path)


def test_labels_follow_the_mapping_and_captions_name_the_class(folder: Path) -> None:
    data = open_dataset(f"imagenet:{folder}", "train", strict=True)
    assert dataset_splits(f"imagenet:{folder}") == ["train", "val"]
    assert data.classes == ("tench", "goldfish", "tabby", "African elephant")
    assert [image.label for image in data] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert data[0].id == "n01440764/n01440764_0.JPEG"
    assert data[0].captions == ("a photo of a tench",)
    assert data[-1].captions == ("a photo of an African elephant",)
    val = open_dataset(f"imagenet:{folder}", "val")
    assert [image.label for image in val] == [0, 1, 2, 3]


def test_templates_and_a_file_of_classes_are_options(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{name} thing {i}\n" for i, name in enumerate(CLASSES)))
    spec = f"imagenet:{folder}?classes={names}&template=a+drawing+of+{{name}}|{{article}} {{name}}"
    data = open_dataset(spec, "val")
    assert data[1].captions == ("a drawing of thing 1", "a thing 1")
    with pytest.raises(DataError, match=r"lacks \{name\}"):
        open_dataset(f"imagenet:{folder}?template=a+photo", "val")


def test_the_challenge_s_own_folders(tmp_path: Path) -> None:
    write(tmp_path / "ILSVRC/Data/CLS-LOC")
    with pytest.raises(DataError, match=r"'n01440764' is no class name .* classes=FILE"):
        open_dataset(f"imagenet:{tmp_path}", "train")
    (tmp_path / "LOC_synset_mapping.txt").write_text(MAPPING)
    assert len(open_dataset(f"imagenet:{tmp_path}", "train")) == 12


def test_any_class_folders_are_named_by_themselves(tmp_path: Path) -> None:
    for name in ("tabby_cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_bytes(b"")
    data = open_dataset(f"imagenet:{tmp_path}", "train")
    assert data.classes == ("dog", "tabby cat")
    assert data[1].captions == ("a photo of a tabby cat",)


def test_bad_folders_and_mappings(folder: Path) -> None:
    with pytest.raises(DataError, match=r"unknown split 'test'.* train, val"):
        open_dataset(f"imagenet:{folder}", "test")
    with pytest.raises(DataError, match="no SPLIT/CLASS/ folders"):
        open_dataset(f"imagenet:{folder}/train/n01440764", "train")
    (folder / "LOC_synset_mapping.txt").write_text(MAPPING.partition("\n")[2])
    with pytest.raises(DataError, match="does not name the class 'n01440764'"):
        open_dataset(f"imagenet:{folder}", "train")
    (folder / "val/n99999999").mkdir()
    with pytest.raises(DataError, match="class 'n99999999', which train has not"):
        open_dataset(f"imagenet:{folder}", "val")
