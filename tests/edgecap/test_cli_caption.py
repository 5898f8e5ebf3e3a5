"""``edgecap caption`` and what all commands share: help, version, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgecap
from edgecap.cli import main
from edgecap.runtime.engines.cuda_memory import driver_problem


@pytest.fixture
def edgecap_command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process -> exit code, standard output, standard error."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), out, err

    return command


def process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """The installed command, as a shell runs it."""
    script = Path(sys.executable).with_name("edgecap")
    assert script.exists(), "edgecap is not installed in this environment"
    return subprocess.run([script, *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = []
    for name, colour in (("white.png", "white"), ("black.jpg", "black"), ("sea.webp", "navy")):
        paths.append(tmp_path / name)
        Image.new("RGB", (50, 40), colour).save(paths[-1])
    return paths


def test_a_line_for_each_picture(
    edgecap_command: Callable[..., Any], tiny_bundle: Path, photos: list[Path]
) -> None:
    code, out, err = edgecap_command("caption", *photos, "--model", tiny_bundle, "--threads", "1")
    captions = edgecap.load(tiny_bundle, threads=1)([str(path) for path in photos])
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{p}: {c}" for p, c in zip(photos, captions, strict=True)]
    sure, not_sure, _ = out.splitlines()
    assert not sure.endswith("(not sure)")
    assert not_sure.endswith(" (not sure)")


def test_a_folder_is_all_photographs_in_it(
    edgecap_command: Callable[..., Any], tiny_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    deep = tmp_path / "deep" / "sea.webp"
    photos[2].rename(deep)
    code, out, err = edgecap_command("caption", tmp_path, "--model", tiny_bundle)
    assert (code, err) == (0, "")
    given = [line.partition(": ")[0] for line in out.splitlines()]
    assert given == [str(path) for path in (photos[1], photos[0], deep)]


def test_json_lines(
    edgecap_command: Callable[..., Any], tiny_bundle: Path, photos: list[Path]
) -> None:
    arguments = ["caption", "--json", "--model", tiny_bundle, "--beams", "2"]
    code, out, _ = edgecap_command(*arguments, "--max-new-tokens", "4", *photos)
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["path"] for line in lines] == [str(path) for path in photos]
    for line in lines:
        names = {"path", "text", "tokens", "score", "confidence", "sure", "timings"}
        assert set(line) == names | {"alternatives", "truncated"}
        assert len(line["tokens"]) <= 4
        assert line["timings"]["total"] > 0


def test_a_bad_picture_does_not_stop_the_others(
    edgecap_command: Callable[..., Any], tiny_bundle: Path, photos: list[Path], tmp_path: Path
) -> None:
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photos[1].read_bytes()[:-100])
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    bad = [tmp_path / "none.jpg", tmp_path / "empty.png", cut, text]
    arguments = [photos[0], *bad, tmp_path / "folder", photos[1]]
    code, out, err = edgecap_command("caption", "--model", tiny_bundle, *arguments)
    assert code == 2
    assert len(out.splitlines()) == 2
    first, *lines = err.splitlines()
    assert first.startswith(f"edgecap: error: {tmp_path / 'folder'} holds no pictures; give a")
    assert len(lines) == len(bad)
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"edgecap: error: {path} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "unknown"], "no model is named 'unknown'; bundled models: "),
        (["--model", "no/such.edgecap"], "no/such.edgecap does not exist"),
        (["--beams", "0"], "beams is 0; give a whole number from 1 to 16"),
        (["--max-new-tokens", "99"], "max_new_tokens is 99; tiny has 12 positions"),
        (["--threads", "0"], "threads is 0"),
    ],
)
def test_errors_are_one_line(
    edgecap_command: Callable[..., Any],
    tiny_bundle: Path,
    photos: list[Path],
    arguments: list[str],
    message: str,
) -> None:
    code, out, err = edgecap_command("caption", photos[0], "--model", tiny_bundle, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("edgecap: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_usage_errors(edgecap_command: Callable[..., Any]) -> None:
    for arguments in (["caption"], ["caption", "--beams", "x", "y"], ["dance"], ["--loud"]):
        code, out, err = edgecap_command(*arguments)
        assert (code, out) == (2, "")
        assert "Error: " in err
        assert "Traceback" not in err


def test_help_and_version(edgecap_command: Callable[..., Any]) -> None:
    code, out, _ = edgecap_command("--help")
    assert code == 0
    for name in main.COMMANDS:
        assert f"\n  {name}" in out
    assert "edgecap caption photo.jpg" in out
    assert edgecap_command("--version")[:2] == (0, f"edgecap {edgecap.__version__}\n")
    code, out, _ = edgecap_command("caption", "--help")
    assert code == 0
    assert "Examples:" in out


def test_help_loads_no_subcommand() -> None:
    code = (
        "import sys; from edgecap.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "assert not {'numpy', 'cv2', 'torch', 'edgecap.cli.caption'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_missing_extra_is_named(
    edgecap_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    def without_torch(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(importlib, "import_module", without_torch)
    code, _, err = edgecap_command("train")
    assert code == 2
    assert "`edgecap train` needs the package 'torch'" in err
    assert "pip install 'edgecap[train]'" in err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    arguments = ("caption", "--model", tmp_path / "no.edgecap", "photo.jpg")
    loud = process(*arguments, env={**os.environ, "EDGECAP_DEBUG": "1"})
    assert loud.returncode != 0
    assert "Traceback" in loud.stderr


def test_the_installed_command(tiny_bundle: Path, photos: list[Path]) -> None:
    done = process("caption", "--model", tiny_bundle, photos[0], "none.jpg")
    assert done.returncode == 2
    assert done.stdout.startswith(f"{photos[0]}: ")
    assert done.stderr == (
        "edgecap: error: none.jpg does not exist; give the path of a picture file\n"
    )


def test_python_dash_m(tiny_bundle: Path, photos: list[Path]) -> None:
    command = [sys.executable, "-m", "edgecap", "caption", "--model", tiny_bundle, photos[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{photos[0]}: ")


def test_a_reader_that_goes_away(tiny_bundle: Path, photos: list[Path]) -> None:
    script = Path(sys.executable).with_name("edgecap")
    command = [script, "caption", "--model", tiny_bundle, *photos * 5]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.readline()
        running.stdout.close()
        assert running.stderr.read() == b""
        assert running.wait() == 1


def test_interrupted(
    edgecap_command: Callable[..., Any],
    tiny_bundle: Path,
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgecap.runtime import captioner

    calls = []

    def load(*_: Any, **__: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return np.zeros((8, 8, 3), np.uint8)

    monkeypatch.setattr(captioner, "load_image", load)
    code, out, err = edgecap_command("caption", "--model", tiny_bundle, *photos)
    assert code == 130
    assert out.endswith("\n")
    assert len(out.splitlines()) == 1
    assert "Traceback" not in err


@pytest.mark.skipif(not driver_problem(), reason="this machine has a CUDA driver")
def test_a_gpu_that_is_not_there_is_one_line_of_notice(
    tiny_bundle: Path, photos: list[Path]
) -> None:
    for options, lines in (([], 0), (["--engine", "cuda"], 1)):
        done = process("caption", "--model", tiny_bundle, *options, photos[0])
        assert done.returncode == 0
        assert len(done.stderr.splitlines()) == lines
        assert len(done.stdout.splitlines()) == 1
    assert done.stderr.startswith("engine 'cuda' was asked for, but there is no CUDA driver")


def test_an_engine_that_is_none(
    edgecap_command: Callable[..., Any], tiny_bundle: Path, photos: list[Path]
) -> None:
    code, out, err = edgecap_command(
        "caption", "--model", tiny_bundle, "--engine", "gpu", photos[0]
    )
    assert (code, out) == (2, "")
    assert err.startswith("edgecap: error: engine is 'gpu'; give one of auto, native, onnxruntime")
