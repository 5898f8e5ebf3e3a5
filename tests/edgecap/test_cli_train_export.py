"""From a recipe to a captioning bundle by the commands a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

for package in ("torch", "onnx", "onnxscript", "matplotlib", "yaml"):
    pytest.importorskip(package)

from small_project import write_small_project  # noqa: E402

import edgecap  # noqa: E402
from edgecap.cli.export import command as export  # noqa: E402
from edgecap.cli.train import command as train  # noqa: E402
from edgecap.runtime.errors import EdgeCapError  # noqa: E402


def call(command, *words: object) -> Result:
    return CliRunner().invoke(command, [str(word) for word in words])


def test_train_export_caption(tmp_path: Path) -> None:
    recipe = write_small_project(tmp_path)
    where = ("--data", tmp_path, "--weights", tmp_path)
    done = call(train, recipe, *where, "--output", tmp_path / "run", "--threads", 1)
    assert done.exit_code == 0, done.output
    assert "best checkpoint" in done.stdout
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000

    out, record = tmp_path / "small.edgecap", tmp_path / "record"
    words = (tmp_path / "run" / "best", "-o", out, "--recipe", recipe, *where, "--record", record)
    test = ("--test", f"flickr8k:{tmp_path}/set=train", "--name", "small", "--threads", 1)
    test = (*test, "--max-drop", 0.9)  # a caption that flips is a twelfth of this test
    done = call(export, *words, *test)
    assert done.exit_code == 0, done.output
    written = json.loads((record / "release.json").read_text())
    assert written["metrics"]["set"]["train"].keys() == {"float32", "int8"}
    assert (record / "reliability.png").stat().st_size > 1000

    captioner = edgecap.load(out)
    assert captioner.name == "small"
    assert captioner.manifest.confidence is not None
    assert captioner.manifest.provenance["seed"] == "3"
    proof = captioner.manifest.export
    assert proof is not None
    assert len(proof.checks) == 4
    assert all("passed" in check for check in proof.checks)
    assert "captions that differ, 4 beams 0" in done.stdout
    caption = captioner(tmp_path / "set" / "images" / "0.png")
    assert caption.text == written["test_captions"]["set/train"]["0.png"]


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    done = call(export, tmp_path, "-o", tmp_path / "x.edgecap")
    assert isinstance(done.exception, EdgeCapError)
    assert "model.json" in str(done.exception)


def test_a_test_list_needs_its_split(tmp_path: Path) -> None:
    recipe = write_small_project(tmp_path)
    (tmp_path / "model.json").write_text("{}")
    words = ("-o", tmp_path / "x.edgecap", "--data", tmp_path, "--test", "flickr8k:here")
    done = call(export, tmp_path, *words, "--recipe", recipe)
    assert "NAME:FOLDER=SPLIT" in str(done.exception)


def test_missing_weights_are_named(tmp_path: Path) -> None:
    recipe = write_small_project(tmp_path)
    (tmp_path / "backbone.safetensors").unlink()
    where = ("--data", tmp_path, "--weights", tmp_path, "--output", tmp_path / "run")
    done = call(train, recipe, *where)
    assert isinstance(done.exception, EdgeCapError)
    assert "backbone.safetensors" in str(done.exception)
