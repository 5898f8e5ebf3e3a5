from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecap.cli.main import run
from edgecap.training.data import DATASETS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    import cv2

    rows = ["image,caption,split"]
    for n, split in enumerate(("train", "train", "val")):
        pixels = np.random.default_rng(n).integers(0, 256, (16, 16, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{n}.png"), pixels)
        rows.append(f"{n}.png,A picture of noise,{split}")
    (tmp_path / "captions.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        run(["data", *(str(word) for word in words)])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_list_names_every_layout(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "list")
    assert code == 0
    assert all(name in out for name in DATASETS)
    code, out, _ = call(capsys, "list", "--json")
    assert list(json.loads(out)) == list(DATASETS)


def test_sound_data_passes_strict(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "check", f"own:{folder}", "--strict")
    assert (code, err) == (0, "")
    assert "nothing wrong was found" in out


def test_problems_are_shown_and_fatal_only_with_strict(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "1.png").write_bytes((folder / "2.png").read_bytes())  # train and val
    (folder / "0.png").write_bytes(b"[red]no picture[/]")
    code, out, err = call(capsys, "check", f"own:{folder}")
    assert (code, err) == (0, "")
    assert "pictures in two splits" in out
    assert "images that cannot be decoded" in out
    code, out, err = call(capsys, "check", f"own:{folder}", "--strict", "--json")
    assert code == 2
    report = json.loads(out)
    assert report["problems"] == {
        "images that cannot be decoded": 1, "pictures in two splits": 1
    }  # fmt: skip
    assert report["examples"]["pictures in two splits"] == ["train: 1.png = val: 2.png"]
    assert [size["images"] for size in report["splits"]] == [2, 1]
    assert [size["images"] for size in report["usable"]] == [0, 1]
    assert err.startswith("edgecap: error: the data has 1 images that cannot be decoded")
    assert err.count("\n") == 1


def test_splits_and_decoding_are_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "0.png").write_bytes(b"no picture")
    code, out, _ = call(capsys, "check", f"own:{folder}", "--split", "val", "--json")
    report = json.loads(out)
    assert (code, report["pictures"], report["problems"]) == (0, 1, {})
    code, out, _ = call(capsys, "check", f"own:{folder}", "--no-decode", "--strict", "--json")
    assert (code, json.loads(out)["decoded"]) == (0, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check", "own:{folder}/nowhere"), "no folder"),
        (("check", "mine:{folder}"), "unknown data set 'mine'; give one of flickr8k"),
        (("check", "own:{folder}", "--split", "test"), "unknown split 'test'"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    code, out, err = call(capsys, *(word.format(folder=folder) for word in words))
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
