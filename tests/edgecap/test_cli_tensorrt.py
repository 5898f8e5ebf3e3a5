"""``edgecap build-engine`` and ``edgecap doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tensorrt_emulation as emulation
from click.testing import CliRunner

from edgecap import doctor
from edgecap.cli.build_engine import command as build_engine
from edgecap.cli.doctor import command as run_doctor
from edgecap.cli.main import run
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.engines.tensorrt import TensorRTEngine
from edgecap.runtime.errors import ImageError


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


def test_engines_are_built_once(tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("tensorrt_rtx", "humanfriendly", "onnx"):
        pytest.importorskip(name)
    arguments = [str(tiny_bundle), "--rtx", "--target", "sm_86", "--workspace", "64MiB"]
    arguments += ["--batch", "1..2", "--beams", "3", "-o", str(tmp_path / "a" / "b")]
    for state in ("built in", "was there"):
        result = CliRunner().invoke(build_engine, arguments, catch_exceptions=False)
        assert result.exit_code == 0
        assert result.stdout.count(state) == 2
    sidecars = [json.loads(p.read_text()) for p in (tmp_path / "a" / "b").glob("*.json")]
    assert {s["role"] for s in sidecars} == {"encoder", "decoder"}
    assert sidecars[0]["profile"] == {"batch": [1, 2], "beams": [3, 3]}
    assert sidecars[0]["build"]["workspace"] == 64 << 20


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--workspace", "much", "'much' is no size"),
        ("--batch", "1-8", "'1-8' is no span"),
        ("--beams", "9..x", "'9..x' is no span"),
        ("--target", "orin", "target is 'orin'"),
        ("--batch", "8..1", "batch is 8..1"),
    ],
)
def test_bad_options(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("humanfriendly")
    with pytest.raises(SystemExit) as caught:
        run(["build-engine", "default", option, value])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("no_tensorrt")
def test_without_tensorrt(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("humanfriendly")
    with pytest.raises(SystemExit) as caught:
        run(["build-engine", "default"])
    assert caught.value.code == 2
    assert "no tensorrt is installed" in capsys.readouterr().err


@pytest.mark.usefixtures("no_tensorrt")
def test_the_doctor_claims_nothing_that_did_not_run(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(run_doctor, [str(tiny_bundle), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert told["trial"]["ran"] == "nothing"
    assert "nothing was built, nothing was run" in told["trial"]["verdict"]
    assert told["machine"]["tensorrt"] == "none"
    assert "CPUExecutionProvider" in told["machine"]["onnxruntime"]
    assert "FFMPEG" in told["machine"]["video"]


def test_the_doctor_builds_where_no_gpu_is(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnx")
    monkeypatch.setattr("edgecap.runtime.engines.cuda_memory.find_device", lambda: None)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    result = CliRunner().invoke(run_doctor, [str(tiny_bundle)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "verdict  built only: TensorRT for RTX" in result.stdout
    assert "nothing was run" in result.stdout


def test_a_comparison_counts_equal_captions(tiny_bundle: Path, tmp_path: Path) -> None:
    """The doctor's own comparison, with engines of the emulated GPU: right ones and wrong ones."""
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    cuda = emulation.HostCuda()
    engine = TensorRTEngine(bundle, tmp_path, library=emulation.library(cuda), cuda=cuda)
    pictures = doctor.trial_pictures(None)
    assert len(pictures) == 10
    good = doctor.compare(bundle, engine, pictures, "an emulation", "fp32")
    assert (good.ran, good.equal, good.pictures, good.failed) == ("captions", 10, 10, False)
    assert good.verdict.startswith("ran: 10 of 10 captions have ONNX Runtime's tokens")

    class Blind:
        """Sees black, whatever it is shown."""

        image_size, vocab_size = engine.image_size, engine.vocab_size
        max_positions, begin = engine.max_positions, engine.begin

        def encode(self, images: np.ndarray) -> Any:
            return engine.encode(np.zeros_like(images))

    bad = doctor.compare(bundle, Blind(), pictures, "an emulation", "fp32")
    assert bad.equal < 8
    assert bad.failed


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no picture"):
        doctor.trial_pictures(tmp_path)
    with pytest.raises(ImageError, match="holds no picture"):
        doctor.trial_pictures(tmp_path / "absent")
    (tmp_path / "note.txt").write_text("no picture")
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((8, 9, 3), number, np.uint8))
    found = doctor.trial_pictures(tmp_path)
    assert [int(p[0, 0, 0]) for p in found] == list(range(10))
