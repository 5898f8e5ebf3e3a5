"""``edgecap doctor``: facts of machines that are not this one, trials, and what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import tensorrt_emulation as emulation
from click.testing import CliRunner
from emulated_driver import build

from edgecap.cli.doctor import command as run_doctor
from edgecap.doctor import gpu, machine, trials
from edgecap.doctor.advice import OTHERWISE, advise
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.engines.choose import ENGINES, ON_GPU
from edgecap.runtime.engines.cuda_memory import Device, driver_problem
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.tensorrt import TensorRTEngine
from edgecap.runtime.errors import EngineError, ImageError

needs_no_driver = pytest.mark.skipif(not driver_problem(), reason="this machine has a CUDA driver")
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n"
)


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture
def orin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a Jetson's file system, as far as the doctor looks at it."""
    files = {
        "etc/nv_tegra_release": RELEASE,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8\nFeatures\t: fp asimd asimddp\n",
        "proc/meminfo": "MemTotal: 7800000 kB\nMemAvailable: 5000000 kB\nSwapTotal: 0 kB\n",
        "sys/class/video4linux/video0/name": "vi-output, imx219 9-0010\n",
        "dev/video0": "",
        "tmp/argus_socket": "",
        "opt/ros/humble/setup.sh": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    programs = {
        "nvpmodel": "echo 'NV Power Mode: 15W'; echo 0",
        "dpkg-query": "printf 6.2+b77",
        "nvcc": "echo 'Cuda compilation tools, release 12.6, V12.6.68'",
        "gst-launch-1.0": "echo 'gst-launch-1.0 version 1.20.3'; echo 'GStreamer 1.20.3'",
        "gst-inspect-1.0": '[ "$2" = nvv4l2decoder ]',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    return tmp_path


def test_the_facts_of_a_jetson(orin: Path) -> None:
    facts = machine.machine_facts(orin)
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert facts["jetpack"] == "JetPack 6.2+b77, Jetson Linux 36.4.3"
    assert facts["power mode"] == "15W"
    assert facts["cpu"].startswith("ARMv8, ")
    assert facts["cpu"].endswith("; asimd, asimddp")
    assert facts["memory"] == "5120 MB of 7987 MB free; no swap"
    assert facts["gstreamer"].startswith("1.20.3; elements nvv4l2decoder; ")
    assert facts["cameras"] == "/dev/video0 (vi-output, imx219 9-0010), CSI by nvargus-daemon"
    assert facts["ros"].startswith("none is sourced: . /opt/ros/NAME/setup.sh; installed: humble; ")
    assert gpu.toolkit() == "nvcc 12.6"


def test_nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    facts = machine.machine_facts(tmp_path)
    assert facts["jetpack"] == "none: no Jetson"
    assert facts["power mode"] == "no nvpmodel"
    assert facts["gstreamer"] == "no gst-launch-1.0"
    assert (facts["cameras"], facts["ros"], facts["memory"]) == ("none", "none", "unknown")
    assert facts["board"] == "unknown"


def test_programs_that_fail_or_hang_are_no_fact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvpmodel").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "slow").write_text("#!/bin/sh\nread line < /dev/zero\n")
    for path in tmp_path.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.power_mode() == "nvpmodel does not say"
    assert machine.output(["slow"], seconds=0.2) == ""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "nv_tegra_release").write_text("something new\n")
    assert machine.jetpack(tmp_path).startswith("something new; nvidia-jetpack is not installed")


def test_a_gpu_in_words() -> None:
    orin_gpu = Device("Orin", "8.7", "12.6", 8, True)
    assert gpu.describe(orin_gpu) == (
        "Orin, compute capability 8.7 (sm_87), 8 multiprocessors, shares the CPU's memory"
    )
    assert "WHILE node" in gpu.graph_loop("12.6")
    assert "WHILE node" in gpu.graph_loop("13.0")
    assert gpu.graph_loop("12.2").startswith("no WHILE nodes before CUDA 12.4")


@pytest.mark.skipif(sys.platform != "linux", reason="the emulated driver is Linux's")
def test_a_gpu_through_the_driver(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings")
    out = build(tmp_path).run(
        """
        from edgecap.doctor.gpu import gpu_facts
        for title, text in gpu_facts().items():
            print(f"{title}: {text}")
        """,
        EMULATED_GPU_INTEGRATED="1",
    )
    assert "gpu: Emulated GPU, compute capability 8.7 (sm_87), 8 multiprocessors, shares" in out
    assert "driver: for CUDA up to 12.6: a caption is one graph with a WHILE node" in out
    assert "gpu memory: 67 MB of 67 MB free, shared with the CPU" in out


@needs_no_driver
@pytest.mark.usefixtures("no_tensorrt")
def test_the_doctor_claims_nothing_that_did_not_run(tiny_bundle: Path) -> None:
    result = CliRunner().invoke(run_doctor, [str(tiny_bundle), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    tried = {trial["engine"]: trial for trial in told["trials"]}
    assert set(tried) == set(ENGINES) - {"auto"}
    for name in set(tried) - {"onnxruntime"}:
        assert tried[name]["ran"] == "nothing"
        assert tried[name]["verdict"].endswith("nothing was run")
        assert bool(tried[name]["advice"]) == (name != "native")
        assert not tried[name]["failed"]
    assert (tried["onnxruntime"]["ran"], tried["onnxruntime"]["equal"]) == ("captions", 10)
    assert tried["native"]["verdict"].startswith("the CPU kernels do not decode tiny")
    assert told["machine"]["tensorrt"] == "none"
    assert "no CUDA driver" in told["machine"]["gpu"]
    assert "CPUExecutionProvider" in told["machine"]["onnxruntime"]
    assert "FFMPEG" in told["machine"]["video"]
    assert told["engine"]["engine"] == "onnxruntime"
    assert len(told["engine"]["passed_over"]) == 5


@needs_no_driver
@pytest.mark.usefixtures("no_tensorrt")
def test_the_doctor_tries_own_steps_on_the_cpu() -> None:
    result = CliRunner().invoke(run_doctor, ["--json"], catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    native = next(trial for trial in told["trials"] if trial["engine"] == "native")
    assert (native["ran"], native["precision"], native["failed"]) == ("captions", "int8", False)
    assert native["equal"] >= 8
    assert "captions have ONNX Runtime's tokens, with own CPU kernels (" in native["verdict"]
    assert told["engine"]["engine"] == "native"
    assert [other["engine"] for other in told["engine"]["passed_over"]] == list(ON_GPU)


@needs_no_driver
def test_the_doctor_builds_where_no_gpu_is(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnx")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    result = CliRunner().invoke(run_doctor, [str(tiny_bundle)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "tensorrt trial  built only: TensorRT for RTX" in result.stdout
    assert "nothing was run" in result.stdout
    assert "chosen  onnxruntime: ONNX Runtime" in result.stdout
    assert result.stdout.count("to do:") == 1  # the same advice is not given three times


def test_a_comparison_counts_equal_captions(tiny_bundle: Path, tmp_path: Path) -> None:
    """The doctor's own comparison, with engines of the emulated GPU: right ones and wrong ones."""
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    cuda = emulation.HostCuda()
    engine = TensorRTEngine(bundle, tmp_path, library=emulation.library(cuda), cuda=cuda)
    pictures = trials.trial_pictures(None)
    assert len(pictures) == 10
    good = trials.compare(bundle, engine, pictures, "an emulation", "fp32")
    assert (good.ran, good.equal, good.pictures, good.failed) == ("captions", 10, 10, False)
    assert good.verdict.startswith("ran: 10 of 10 captions have ONNX Runtime's tokens")

    class Blind:
        """Sees black, whatever it is shown."""

        image_size, vocab_size = engine.image_size, engine.vocab_size
        max_positions, begin = engine.max_positions, engine.begin

        def encode(self, images: np.ndarray) -> Any:
            return engine.encode(np.zeros_like(images))

    bad = trials.compare(bundle, Blind(), pictures, "an emulation", "fp32")
    assert bad.equal < 8
    assert bad.failed
    assert "report what edgecap doctor --json prints" in advise(bad.verdict, "cuda", failed=True)


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A driver, and a module of the decoder whose ``CudaDecoder`` the test sets."""
    cuda = emulation.HostCuda()
    for place in ("trials", "gpu"):
        monkeypatch.setattr(f"edgecap.doctor.{place}.driver_problem", lambda: "")
    monkeypatch.setattr("edgecap.runtime.engines.cuda_memory.open_cuda", lambda: cuda)
    module = ModuleType("edgecap.runtime.engines.cuda_decoder")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_kernels_that_caption_and_kernels_that_lack_code(
    tiny_bundle: Path, gpu_machine: ModuleType
) -> None:
    bundle = read_bundle(tiny_bundle)
    pictures = trials.trial_pictures(None)[:3]

    class Decoder:
        def __init__(self, bundle: Any, cuda: Any, precision: str) -> None:
            self.engine = OnnxEngine(bundle, threads=1)
            assert precision == "fp16"

        def decode(self, encoded: Any, options: Any, special: Any, **more: Any) -> Decoded:
            return generate(self.engine, encoded, options, special, **more)

    def refuse(*_: Any, **__: Any) -> None:
        raise EngineError("the kernels hold code for 7.5 and 8.6 but no code for 8.7")

    def tried() -> trials.Trial:
        found = trials.try_engines(bundle, pictures, "int8")
        return next(trial for trial in found if trial.engine == "cuda")

    gpu_machine.CudaDecoder = Decoder  # type: ignore[attr-defined]
    good = tried()
    assert (good.equal, good.pictures, good.failed, good.advice) == (3, 3, False, "")
    assert good.verdict.endswith("with own kernels on Orin")
    gpu_machine.CudaDecoder = refuse  # type: ignore[attr-defined]
    bad = tried()
    assert bad.failed
    assert bad.verdict == ("failed: the kernels hold code for 7.5 and 8.6 but no code for 8.7")
    assert bad.advice.startswith("build the kernels on this machine: docs/gpu.md")


@pytest.mark.parametrize(
    ("verdict", "engine", "words"),
    [
        ("no CUDA driver on this machine: nothing was run", "cuda", "install its driver"),
        ("no TensorRT is installed: nothing was built", "tensorrt", "--system-site-packages"),
        ("failed: the GPU's memory is full: 900 MB were needed", "cuda", "close other programs"),
        ("failed: it needs the package 'onnx': pip", "cuda", "pip install 'edgecap[gpu]'"),
        (
            "failed: onnxruntime does not start its CUDAExecutionProvider: x",
            "onnxruntime-cuda",
            "install the CUDA",
        ),
        ("failed: TensorRT 10.3.0 does not load /a/b.plan: x", "tensorrt", "delete that plan"),
        ("failed: something nobody thought of", "cuda", "report what edgecap doctor --json prints"),
    ],
)
def test_every_failure_has_advice(verdict: str, engine: str, words: str) -> None:
    assert words in advise(verdict, engine, failed=verdict.startswith("failed"))
    assert "EDGECAP_DEBUG=1" in OTHERWISE


def test_pictures_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no picture"):
        trials.trial_pictures(tmp_path)
    with pytest.raises(ImageError, match="holds no picture"):
        trials.trial_pictures(tmp_path / "absent")
    (tmp_path / "note.txt").write_text("no picture")
    for number in range(12):
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), np.full((8, 9, 3), number, np.uint8))
    found = trials.trial_pictures(tmp_path)
    assert [int(p[0, 0, 0]) for p in found] == list(range(10))
