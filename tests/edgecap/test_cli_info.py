"""``edgecap info``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecap.cli.info import command
from edgecap.cli.main import run
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.engines.choose import ON_GPU
from edgecap.runtime.engines.cuda_memory import driver_problem
from edgecap.runtime.manifest import to_dict


def test_summary(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(command, [str(tiny_bundle)])
    assert result.exit_code == 0
    for text in (
        str(tiny_bundle),
        "tiny 1",
        "image-transformer",
        "Apache-2.0",
        "32 x 32 RGB, squash",
        "22 tokens",
        "image uint8[B, 32, 32, 3]",
        "token int64[R], position int64[], ancestry bool[R, KT]",
        "cache.key float32[B, KT, 16]",
        "flickr8k val, int8: CIDEr 0.5",
        "not sure under 0.5",
        "engine  onnxruntime: ONNX Runtime",
    ):
        assert text in result.output


def test_json_is_the_manifest(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(command, ["--json", str(tiny_bundle)])
    facts = json.loads(result.output)
    assert facts.pop("path") == str(tiny_bundle)
    assert facts.pop("bytes") == tiny_bundle.stat().st_size
    engine = facts.pop("engine")
    assert (engine["asked"], engine["engine"]) == ("auto", "onnxruntime")
    assert next(other["engine"] for other in engine["passed_over"]) == "cuda"
    assert facts == json.loads(json.dumps(to_dict(read_bundle(tiny_bundle).manifest)))


@pytest.mark.skipif(not driver_problem(), reason="this machine has a CUDA driver")
def test_the_engine_of_the_default_model() -> None:
    engine = json.loads(CliRunner().invoke(command, ["--json"]).output)["engine"]
    assert (engine["asked"], engine["engine"]) == ("auto", "native")
    assert engine["summary"].startswith(
        "encoder: own CPU kernels in int8; decoder: own CPU kernels in int8"
    )
    assert [other["engine"] for other in engine["passed_over"]] == list(ON_GPU)


@pytest.mark.parametrize("kept", [0.5, 1.0])
def test_bundles_that_cannot_be_read(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kept: float
) -> None:
    data = bytearray(tiny_bundle.read_bytes())
    data[len(data) // 3] ^= 1
    (tmp_path / "bad.edgecap").write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(SystemExit) as caught:
        run(["info", str(tmp_path / "bad.edgecap")])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("edgecap: error: ")
    assert err.count("\n") == 1


def test_an_engine_that_is_none(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGECAP_ENGINE", "gpu")
    with pytest.raises(SystemExit) as caught:
        run(["info", str(tiny_bundle)])
    assert caught.value.code == 2
    assert "EDGECAP_ENGINE is 'gpu'" in capsys.readouterr().err
