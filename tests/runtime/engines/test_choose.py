"""Which engine is chosen, and what is said about the others."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorrt_emulation as emulation
import tiny_models as tiny
from emulated_driver import EmulatedDriver, build

import edgecap
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines import choose
from edgecap.runtime.engines.choose import ENGINES, ON_GPU, choose_engine
from edgecap.runtime.engines.cuda import CudaEngine
from edgecap.runtime.engines.cuda_memory import driver_problem
from edgecap.runtime.engines.native_step import NativeStepEngine
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.errors import EngineError, OptionsError

needs_no_driver = pytest.mark.skipif(not driver_problem(), reason="this machine has a CUDA driver")
SPECIAL = SpecialTokens(bos=tiny.BOS, eos=tiny.EOS, pad=tiny.PAD)


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(choose.VARIABLE, raising=False)


class HostDecoder:
    """Decodes whole captions, by the steps of ONNX Runtime. Counts its calls."""

    def __init__(self, bundle: Bundle, cuda: Any = None) -> None:
        self.engine, self.batches = OnnxEngine(bundle, threads=1), []

    def decode(self, encoded: Any, options: Any, special: Any, **more: Any) -> Decoded:
        self.batches.append(encoded.batch)
        return generate(self.engine, encoded, options, special, **more)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A machine with a driver, TensorRT and a GPU, all emulated; gives the folder of engines."""

    def make(decoder: Any = None) -> Path:
        cuda = emulation.HostCuda()
        library = emulation.library(cuda)
        monkeypatch.setattr(choose, "driver_problem", lambda: "")
        monkeypatch.setattr(choose, "open_cuda", lambda: cuda)
        monkeypatch.setattr("edgecap.runtime.engines.tensorrt.open_cuda", lambda: cuda)
        monkeypatch.setattr("edgecap.runtime.engines.tensorrt.load_library", lambda: library)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        module = ModuleType("edgecap.runtime.engines.cuda_decoder")
        module.CudaDecoder = decoder or refuse  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return tmp_path / "edgecap" / "engines"

    return make


def refuse(bundle: Bundle, cuda: Any) -> None:
    raise EngineError("the kernels hold no code for compute capability 8.7; build with sm_87")


@needs_no_driver
def test_without_a_driver_own_steps_on_the_cpu_are_taken_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    captioner = edgecap.load("default", threads=1)
    choice = captioner.engine_choice
    assert isinstance(captioner.engine, NativeStepEngine)
    assert (choice.asked, choice.engine, choice.notice) == ("auto", "native", "")
    assert [p.engine for p in choice.passed_over] == list(ON_GPU)
    assert all("no CUDA driver on this machine" in p.why for p in choice.passed_over)
    assert choice.lines()[0].startswith(
        "native: encoder: own CPU kernels in int8; decoder: own CPU"
    )
    assert choice.lines()[1:] == [f"passed over {', '.join(ON_GPU)}: {driver_problem()}"]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@needs_no_driver
@pytest.mark.parametrize("asked", ON_GPU)
def test_asked_for_a_gpu_without_a_driver(
    tiny_bundle: Path, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    captioner = edgecap.load(tiny_bundle, threads=1, engine=asked)
    assert captioner.engine_choice.engine == "onnxruntime"
    assert captioner.engine_choice.asked == asked
    said = [r.getMessage() for r in caplog.records if r.name == "edgecap.engines"]
    assert len(said) == 1
    assert said[0].startswith(f"engine '{asked}' was asked for, but there is no CUDA driver")
    assert said[0].endswith("the CPU runs the model")


@needs_no_driver
@pytest.mark.parametrize("asked", ["auto", "cuda"])
def test_what_own_steps_do_not_compute_is_run_by_onnx_runtime(
    tiny_bundle: Path, asked: str
) -> None:
    captioner = edgecap.load(tiny_bundle, threads=1, engine=asked)
    choice = captioner.engine_choice
    assert isinstance(captioner.engine, OnnxEngine)
    assert (choice.asked, choice.engine) == (asked, "onnxruntime")
    assert choice.passed_over[-1].engine == "native"
    assert choice.passed_over[-1].why.startswith("the CPU kernels do not decode tiny (image-tr")
    with pytest.raises(EngineError, match="the CPU kernels do not decode tiny"):
        edgecap.load(tiny_bundle, engine="native")


def test_a_bad_option_is_said_whatever_could_stand_in(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionsError, match="threads is 0"):
        edgecap.load(tiny_bundle, threads=0)
    monkeypatch.setenv("EDGECAP_NATIVE_PRECISION", "int3")
    with pytest.raises(OptionsError, match="precision is 'int3'; give one of int8"):
        edgecap.load(tiny_bundle)
    assert ENGINES[:3] == ("auto", "native", "onnxruntime")


def test_the_environment_and_bad_names(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        OptionsError, match=r"^engine is .gpu.; give one of auto, native, onnxruntime"
    ):
        edgecap.load(tiny_bundle, engine="gpu")
    monkeypatch.setenv(choose.VARIABLE, "onnxruntime")
    choice = edgecap.load(tiny_bundle, threads=1).engine_choice
    assert (choice.asked, choice.passed_over) == ("onnxruntime", ())
    monkeypatch.setenv(choose.VARIABLE, "TensorRT")
    with pytest.raises(OptionsError, match="EDGECAP_ENGINE is 'TensorRT'; give one of"):
        edgecap.load(tiny_bundle)
    assert edgecap.load(tiny_bundle, engine="onnxruntime", threads=1).engine_choice.asked
    monkeypatch.setenv(choose.VARIABLE, "")
    assert choose.check_name(None) == "auto"


def test_a_captioner_by_itself_runs_on_the_cpu(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What proves and scores models does not change with the machine."""
    monkeypatch.setenv(choose.VARIABLE, "cuda")
    assert isinstance(Captioner(tiny_bundle, threads=1).engine, OnnxEngine)
    own = OnnxEngine(read_bundle(tiny_bundle), threads=1)
    captioner = Captioner(tiny_bundle, engine=own)
    assert captioner.engine is own
    assert captioner.engine_choice.lines() == ["own: OnnxEngine"]


def test_own_kernels_behind_tensorrt_come_first(
    tiny_bundle: Path, gpu: Callable[..., Path]
) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(gpu(HostDecoder), bundle)
    captioner = edgecap.load(tiny_bundle)
    choice = captioner.engine_choice
    assert (choice.engine, choice.passed_over) == ("cuda", ())
    assert "encoder: TensorRT 10.3.0 in fp32 on Orin, compute capability 8.7" in choice.summary
    assert "own CUDA kernels" in choice.summary
    picture = np.random.default_rng(1).integers(0, 256, (40, 50, 3), np.uint8)
    expected = Captioner(tiny_bundle, threads=1)(picture, channels="RGB")
    found = captioner(picture, channels="RGB")
    assert found.tokens == expected.tokens
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    engine = captioner.engine
    assert isinstance(engine, CudaEngine)
    assert engine._decoder.batches == [1]  # type: ignore[attr-defined]


def test_tensorrt_steps_where_the_kernels_do_not_run(
    tiny_bundle: Path, gpu: Callable[..., Path]
) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(gpu(), bundle)
    engine, choice = choose_engine(bundle)
    assert choice.engine == "tensorrt"
    assert "; beam search on the host (" in choice.summary  # no library of kernels either
    assert choice.lines()[1:] == [
        "passed over cuda: the kernels hold no code for compute capability 8.7; build with sm_87"
    ]
    assert engine.vocab_size == tiny.VOCAB
    with pytest.raises(EngineError, match="no code for compute capability"):
        choose_engine(bundle, "cuda")


def test_engines_that_are_not_built_are_named_with_the_command(
    tiny_bundle: Path, gpu: Callable[..., Path]
) -> None:
    gpu(HostDecoder)
    bundle = read_bundle(tiny_bundle)
    _, choice = choose_engine(bundle, threads=1)
    assert choice.engine == "onnxruntime"
    reasons = {p.engine: p.why for p in choice.passed_over}
    assert list(reasons) == [*ON_GPU, "native"]
    for name in ("cuda", "tensorrt"):
        assert any(
            p.engine == name and f"edgecap build-engine {tiny_bundle}" in p.why
            for p in choice.passed_over
        )
    assert (
        "has no CUDAExecutionProvider: pip install onnxruntime-gpu" in reasons["onnxruntime-cuda"]
    )
    with pytest.raises(EngineError, match="edgecap build-engine"):
        choose_engine(bundle, "tensorrt")
    with pytest.raises(EngineError, match="has no TensorrtExecutionProvider"):
        choose_engine(bundle, "onnxruntime-tensorrt")
    # By name the kernels are taken behind whatever encodes.
    engine, choice = choose_engine(bundle, "cuda", threads=1)
    assert isinstance(engine, CudaEngine)
    assert "encoder: ONNX Runtime" in choice.summary
    assert [p.engine for p in choice.passed_over] == ["cuda", "cuda"]


def test_a_crash_of_a_gpus_package_is_a_reason(tiny_bundle: Path, gpu: Callable[..., Path]) -> None:
    def crash(bundle: Bundle, cuda: Any) -> None:
        raise RuntimeError("symbol not\nfound")

    gpu(crash)
    _, choice = choose_engine(read_bundle(tiny_bundle), threads=1)
    assert choice.passed_over[0].why == "RuntimeError: symbol not found"


def test_many_rows_come_in_parts(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    encoder, decoder = OnnxEngine(bundle, threads=1), HostDecoder(bundle)
    engine = CudaEngine(encoder, decoder, max_rows=12)
    images = np.random.default_rng(0).integers(0, 256, (7, tiny.SIZE, tiny.SIZE, 3), np.uint8)
    options = DecodingOptions(beams=4, max_new_tokens=6, num_return_sequences=2)
    found = generate(engine, engine.encode(images), options, SPECIAL)
    expected = generate(encoder, encoder.encode(images), options, SPECIAL)
    assert decoder.batches == [3, 3, 1]
    assert [[h.tokens for h in a] for a in found.hypotheses] == [
        [h.tokens for h in a] for a in expected.hypotheses
    ]
    assert found.steps == expected.steps


def test_one_captioner_from_two_threads(tiny_bundle: Path, gpu: Callable[..., Path]) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(gpu(HostDecoder), bundle)
    captioner = edgecap.load(tiny_bundle)
    rng = np.random.default_rng(2)
    pictures = [rng.integers(0, 256, (30, 40, 3), np.uint8) for _ in range(6)]
    alone = [captioner(picture, channels="RGB").tokens for picture in pictures]
    together: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        together[number] = [captioner(p, channels="RGB").tokens for p in pictures * 3]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {0: alone * 3, 1: alone * 3}


@pytest.mark.skipif(sys.platform != "linux", reason="the emulated driver is Linux's")
def test_with_a_driver_the_real_modules_are_asked(tmp_path: Path) -> None:
    """No emulation of Python's: the real cuda-python and choice, with the emulated driver."""
    pytest.importorskip("cuda.bindings")
    driver: EmulatedDriver = build(tmp_path)
    out = driver.run(
        """
        import edgecap
        choice = edgecap.load("default", threads=1).engine_choice
        print(choice.engine)
        for other in choice.passed_over:
            print(other.engine, "|", other.why)
        """
    )
    lines = out.splitlines()
    assert lines[0] == "native"
    assert {line.partition(" |")[0] for line in lines[1:]} == set(ON_GPU)
    assert "no CUDA driver" not in out
