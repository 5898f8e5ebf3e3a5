"""The GPU benchmarks, tried as far as a CPU goes: their results are right, their times are none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgecap.runtime.engines.cuda_library import CudaLibrary
from edgecap.runtime.engines.cuda_memory import driver_problem

pytest.importorskip("torch")
FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "gpu"


@pytest.fixture
def emulated(kernels: tuple[CudaLibrary, Any]) -> str:
    if kernels[0].architectures != ("emulated",):
        pytest.skip("on a GPU the benchmarks themselves are run: make gpu-bench")
    return str(kernels[0].path)


def printed(script: str, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, str(FOLDER / script), *words], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_the_beam_step_is_that_of_the_specification(emulated: str) -> None:
    found = printed("beam_step.py", "--emulated", emulated, "--vocab", "61")
    assert [(case["beams"], case["batch"]) for case in found["cases"]] == [
        *((1, 1), (4, 1), (8, 1), (4, 16), (8, 16))
    ]
    for case in found["cases"]:
        assert case["same_as_reference"]
        assert case["ours_ms"] is None  # an emulation's time means nothing
    assert "verdict" not in found


@pytest.mark.slow
def test_captions_are_those_of_transformers_and_of_the_torch_step(
    emulated: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    found = printed("captions.py", "tiny", "--emulated", emulated, "--folder", str(tmp_path))
    assert found["precision"] == "fp32"
    for case in found["cases"]:
        assert case["same_as_torch_step"] == case["same_as_generate"] == 1.0
        assert "ours_ms" not in case


@pytest.mark.skipif(not driver_problem(), reason="this machine has a CUDA driver")
def test_without_a_gpu_the_record_says_not_run(tmp_path: Path) -> None:
    record = printed("run.py", "--out", str(tmp_path / "gpu.json"))
    assert record["status"] == "not run"
    assert "no GPU" in record["why"]
    assert len(record["kernels_sha256"]) == 64
    assert json.loads((tmp_path / "gpu.json").read_text()) == record


def test_a_wait_inside_a_caption_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import host_waits

    good = ["aten::zeros", "cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"]
    assert host_waits.count(good)["reached"]
    assert not host_waits.count([*good, "cudaStreamSynchronize"])["reached"]
    assert not host_waits.count([*good[:3], "cudaGraphLaunch", good[3]])["reached"]
    assert host_waits.count(good)["calls"] == dict.fromkeys(good[1:], 1)
