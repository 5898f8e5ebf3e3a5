"""Every kernel compiles for every target GPU, and none starts to spill its registers."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "compile_kernels", ROOT / "tools/compile_kernels.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nvcc(tool: ModuleType) -> None:
    if tool.find_compiler() is None:
        pytest.skip("no nvcc on this machine to compile the kernels with")
    if shutil.which("c++filt") is None:
        pytest.skip("no c++filt on this machine to name the kernels with")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_kernels_for_all_targets(tool: ModuleType, nvcc: None) -> None:
    done = CliRunner().invoke(tool.main, ["--check"])
    assert done.exit_code == 0, done.output
    assert f"{len(tool.TARGETS)} targets, 0 with spills" in done.output


def test_it_compiles_for_cuda_without_conditional_nodes(
    tool: ModuleType, nvcc: None, tmp_path: Path
) -> None:
    """Before CUDA 12.4 the caption is an unrolled graph; to PTX, which takes a part of the time."""
    command = [tool.compiler(), *tool.FLAGS, "-ptx", "-arch=compute_87", f"-I{tool.NATIVE}"]
    out = tmp_path / "decoder.ptx"
    source = tool.NATIVE / "decoder_api.cu"
    tool.run([*command, "-DEDGECAP_WHILE_NODES=0", str(source), "-o", str(out)])
    assert "cudaGraphSetConditional" not in out.read_text()
    assert ".entry" in out.read_text()


def test_a_kernel_that_spills_is_refused(
    tool: ModuleType, nvcc: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one: 200 floats alive in 64 registers."""
    (tmp_path / "greedy.cu").write_text(
        "template <typename T>\n"
        "__global__ void __launch_bounds__(1024) Greedy(T* x) {\n"
        "  T kept[200];\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 200; ++i) kept[i] = x[i * 1024 + threadIdx.x];\n"
        "  __syncthreads();\n"
        "#pragma unroll\n"
        "  for (int i = 0; i < 200; ++i) x[i * 1024 + threadIdx.x] = kept[199 - i] * kept[i];\n"
        "}\n"
        "template __global__ void Greedy<float>(float*);\n"
    )
    monkeypatch.setattr(tool, "NATIVE", tmp_path)
    record = tmp_path / "kernels.json"
    arguments = ["--targets", "87", "--record", str(record)]
    checked = CliRunner().invoke(tool.main, [*arguments, "--check"])
    assert checked.exit_code == 1
    assert "greedy.cu: Greedy<float>" in checked.output
    assert "on sm_87, 0 at most" in checked.output
    assert not record.exists()

    assert CliRunner().invoke(tool.main, arguments).exit_code == 0
    found = json.loads(record.read_text())["kernels"]["greedy.cu: Greedy<float>"]["87"]
    assert found["registers"] <= 64
    assert found["spill"] > 0
    assert (
        CliRunner().invoke(tool.main, [*arguments, "--check"]).exit_code == 0
    )  # no more than known


def test_the_record_has_every_target(tool: ModuleType) -> None:
    record = json.loads(tool.RECORD.read_text())
    assert {name.partition(":")[0] for name in record["kernels"]} == {
        path.name for path in tool.sources()
    }
    for name, targets in record["kernels"].items():
        assert set(targets) == set(tool.TARGETS), name
        for found in targets.values():
            assert found["spill"] == 0, name
            assert 0 < found["registers"] <= 255


def test_bad_arguments(tool: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = CliRunner().invoke(tool.main, ["--targets", "orin"])
    assert wrong.exit_code == 2
    assert "numbers such as 87,110" in wrong.output
    monkeypatch.setattr(tool, "find_compiler", lambda: None)
    absent = CliRunner().invoke(tool.main, ["--check"])
    assert absent.exit_code == 1
    assert "no nvcc" in absent.output
