"""``edgecap train``: families and recipes, keys on the command line, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

for package in ("torch", "safetensors", "matplotlib", "yaml"):
    pytest.importorskip(package)

import small_encoder  # noqa: E402, F401
from small_project import write_small_set, write_smaller_project  # noqa: E402

from edgecap.cli.main import run  # noqa: E402

SMALL = (
    "encoder.name=small",
    "options.batch=4",
    "options.epochs=1",
    "options.events=false",
    "views=1",
    "min_count=1",
)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        run(["train", *map(str, words), "--threads", "1"])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


@pytest.mark.parametrize("family", ["show-and-tell", "image-transformer"])
def test_a_family_trains_on_a_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    folder, out = write_small_set(tmp_path / "set"), tmp_path / "run"
    width = ["model.width=32", "model.hidden=32"]
    width += ["model.heads=4"] if family == "image-transformer" else []
    words = (family, "--data", f"flickr8k:{folder}", "--out", out, *SMALL, *width)
    code, said, error = call(capsys, *words)
    assert code == 0, error
    assert f"best checkpoint: {out / 'best'}" in said
    described = json.loads((out / "best/model.json").read_text())
    assert described["family"] == family
    assert described["options"]["width"] == 32
    assert "epochs: 1" in (out / "config.yaml").read_text()
    code, _, error = call(capsys, *words, "options.seed=8")
    assert code == 2
    assert "options.seed 7, now it is 8" in error


def test_a_recipe_takes_values_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, cache = write_smaller_project(tmp_path), tmp_path / "features"
    words = (recipe, "options.epochs=2", "--data", tmp_path, "-o", tmp_path / "run")
    code, said, error = call(capsys, *words, "--cache", cache)
    assert code == 0, error
    assert "epoch 2 of 2" in said
    assert (cache / "train/key.txt").exists()


def test_a_loss_that_is_no_number_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_smaller_project(tmp_path)
    words = (recipe, "--data", tmp_path, "--out", tmp_path / "run", "options.decoder_rate=1e37")
    code, _, error = call(capsys, *words, "options.warm_up=0", "options.precision=fp32")
    assert code == 2
    assert error.startswith("edgecap: error: the loss is nan at step 2")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show-and-tel", "--data", "flickr8k:x"), "give one of default"),
        (("show-and-tell", "--data", "flicker:x"), "give one of flickr8k"),
        (("show-and-tell", "--data", "flickr8k:nowhere"), "no folder 'nowhere'"),
        (("show-and-tell",), "give --data NAME:FOLDER"),
        (("default", "--data", "a", "--data", "b"), "takes one --data FOLDER"),
        (("options.epoch=3", "--data", "a", "--weights", "b"), "did you mean options.epochs"),
    ],
)
def test_wrong_words_are_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    code, _, error = call(capsys, *words, "--out", tmp_path / "run")
    assert code == 2
    assert said in error
    assert "Traceback" not in error


def test_an_interruption_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecap.training.trainer import Trainer

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_step", interrupted)
    recipe = write_smaller_project(tmp_path)
    code, _, error = call(capsys, recipe, "--data", tmp_path, "--out", tmp_path / "run")
    assert code == 130
    assert "run the same again to go on" in error
