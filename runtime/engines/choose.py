"""Which engine runs a bundle on this machine, and why no better one does.

In this order: a TensorRT encoder with this project's own CUDA decoder, TensorRT for both graphs,
ONNX Runtime's execution providers for the GPU, this project's own decoder steps on the CPU, ONNX
Runtime there for both graphs. On a machine without a CUDA driver the GPU's part of this takes
microseconds: nothing of its packages is imported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.decoding.loop import DecodesCaptions
from edgecap.runtime.engines.base import Engine
from edgecap.runtime.engines.cuda import CudaEngine
from edgecap.runtime.engines.cuda_memory import driver_problem, open_cuda
from edgecap.runtime.engines.onnx import OnnxEngine, Provider
from edgecap.runtime.errors import EdgeCapError, EngineError, OptionsError

VARIABLE = "EDGECAP_ENGINE"
CPU = "onnxruntime"  # runs every bundle: what the others are compared with
NATIVE = "native"  # own decoder steps on the CPU, and encoders where they can
ON_CPU = (NATIVE, CPU)
ON_GPU = ("cuda", "tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt")
ENGINES = ("auto", *ON_CPU, *ON_GPU)
PROVIDERS = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
# (engine, what encodes for "cuda"), best first.
ORDER = (
    ("cuda", "tensorrt"),
    ("tensorrt", ""),
    ("cuda", "onnxruntime-cuda"),
    *((name, "") for name in PROVIDERS),
    *((name, "") for name in ON_CPU),
)
LOG = logging.getLogger("edgecap.engines")
if TYPE_CHECKING:
    from edgecap.runtime.engines.tensorrt import TensorRTEngine


@dataclass(frozen=True)
class PassedOver:
    """An engine that was not taken, and why, in one line."""

    engine: str
    why: str


@dataclass(frozen=True)
class EngineChoice:
    """What runs a model.

    asked : what was asked for, one of ``ENGINES``
    engine : what runs, one of ``ENGINES`` but "auto"; "own" for an engine that was handed over
    summary : the parts of it in words
    passed_over : what would have been preferred, in that order
    notice : a line for a user who asked for a GPU and gets the CPU; else empty
    """

    asked: str
    engine: str
    summary: str
    passed_over: tuple[PassedOver, ...] = ()
    notice: str = ""

    def lines(self) -> list[str]:
        """What runs, then a line for each reason why others do not."""
        reasons: dict[str, list[str]] = {}
        for other in self.passed_over:
            reasons.setdefault(other.why, []).append(other.engine)
        passed_over = [f"passed over {', '.join(who)}: {why}" for why, who in reasons.items()]
        return [f"{self.engine}: {self.summary}", *passed_over]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def choose_engine(
    bundle: Bundle, asked: str | None = None, *, threads: int | None = None
) -> tuple[Engine, EngineChoice]:
    """The engine that runs ``bundle`` here.

    asked : one of ``ENGINES``; by default what the environment variable EDGECAP_ENGINE names, else
        "auto", the first that works
    threads : for what runs on the CPU

    An engine asked for by name is the only one tried; but where there is no CUDA driver at all the
    CPU stands in, and ``notice`` says so. Raises ``OptionsError`` for a name that is none,
    ``EngineError`` or ``MissingExtraError`` where the engine asked for does not run, and
    ``BundleError`` for a bundle that none can run.
    """
    asked = check_name(asked)
    opener = Opener(bundle, threads)
    if asked in ON_GPU and (problem := driver_problem()):
        notice = f"engine {asked!r} was asked for, but there is {problem}: the CPU runs the model"
        engine, choice = _first_that_works(asked, [(name, "") for name in ON_CPU], opener)
        passed_over = (PassedOver(asked, problem), *choice.passed_over)
        return engine, replace(choice, passed_over=passed_over, notice=notice)
    if asked == "auto":
        candidates = ORDER
    elif asked == "cuda":  # asked for by name, the decoder runs behind any encoder
        candidates = tuple(("cuda", encoder) for encoder in ("tensorrt", "onnxruntime-cuda", CPU))
    else:
        candidates = ((asked, ""),)
    return _first_that_works(asked, candidates, opener)


def check_name(asked: str | None) -> str:
    """``asked``, else the environment's wish, else "auto". Raises ``OptionsError``."""
    name = asked if asked is not None else os.environ.get(VARIABLE) or "auto"
    if name not in ENGINES:
        where = "engine" if asked is not None else VARIABLE
        raise OptionsError(f"{where} is {name!r}; give one of {', '.join(ENGINES)}")
    return name


def _first_that_works(
    asked: str, candidates: Sequence[tuple[str, str]], opener: Opener
) -> tuple[Engine, EngineChoice]:
    passed_over: list[PassedOver] = []
    for name, encoder in candidates:
        try:
            if name in ON_GPU and (problem := driver_problem()):
                raise EngineError(problem)
            engine, choice = opener.open(name, encoder)
        except (EdgeCapError, ImportError, OSError, RuntimeError) as error:
            bad_option = name in ON_CPU and isinstance(error, OptionsError)
            if bad_option or (name, encoder) == candidates[-1]:
                raise
            reason = PassedOver(name, in_one_line(error))
            if reason not in passed_over:
                passed_over.append(reason)
                LOG.info("engine %s passed over: %s", reason.engine, reason.why)
            continue
        return engine, replace(choice, asked=asked, passed_over=tuple(passed_over))
    raise EngineError("no engine was given to choose from")


def in_one_line(error: Exception) -> str:
    """What an error says, for a list of reasons."""
    if isinstance(error, ModuleNotFoundError):
        return f"it needs the package {error.name!r}: pip install 'edgecap[gpu]'"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, EdgeCapError) else f"{type(error).__name__}: {text[:200]}"


class Opener:
    """Opens engines for one bundle; the CUDA decoder once, whatever encodes for it."""

    def __init__(self, bundle: Bundle, threads: int | None) -> None:
        self._bundle, self._threads = bundle, threads
        self._decoder: DecodesCaptions | Exception | None = None

    def open(self, name: str, encoder: str = "") -> tuple[Engine, EngineChoice]:
        """An engine of ``ENGINES``. encoder : what encodes for "cuda"."""
        if name == "cuda":
            decoder = self._cuda_decoder()
            steps, choice = self.open(encoder) if encoder != "tensorrt" else self._tensorrt(True)
            summary = f"encoder: {choice.summary}; decoder: own CUDA kernels, a caption a launch"
            return CudaEngine(steps, decoder), EngineChoice(name, name, summary)
        if name == "tensorrt":
            return self._tensorrt(False)
        if name == NATIVE:
            return self._native()
        return self._cpu() if name == CPU else self._provider(name)

    def _cuda_decoder(self) -> DecodesCaptions:
        if self._decoder is None:
            from edgecap.runtime.engines.cuda_decoder import CudaDecoder

            try:
                # Its own stream: what it records into a graph is never another's work.
                self._decoder = CudaDecoder(self._bundle, open_cuda())
            except (EdgeCapError, ImportError, OSError, RuntimeError) as error:
                self._decoder = error
        if isinstance(self._decoder, Exception):
            raise self._decoder
        return self._decoder

    def _tensorrt(self, steps_later: bool) -> tuple[Engine, EngineChoice]:
        from edgecap.runtime.engines.tensorrt import TensorRTEngine

        engine = TensorRTEngine(self._bundle, steps_later=steps_later)
        device = engine.cuda.device
        summary = f"{engine.library} in {engine.precision} on {device.name}, "
        summary += f"compute capability {device.compute_capability}"
        choice = EngineChoice("tensorrt", "tensorrt", summary)
        return (engine, choice) if steps_later else self._with_search(engine, choice)

    @staticmethod
    def _with_search(engine: TensorRTEngine, choice: EngineChoice) -> tuple[Engine, EngineChoice]:
        """The steps under the CUDA kernels of the search where they load, else under the host's."""
        from edgecap.runtime.engines.cuda_library import load_library
        from edgecap.runtime.engines.tensorrt_loop import STEPS, TensorRTCaptions

        try:
            captions = TensorRTCaptions(engine, load_library())
        except EngineError as error:
            summary = f"{choice.summary}; beam search on the host ({in_one_line(error)})"
            return engine, replace(choice, summary=summary)
        summary = f"{choice.summary}; beam search by own CUDA kernels, {STEPS} steps a graph"
        return CudaEngine(engine, captions), replace(choice, summary=summary)

    def _provider(self, name: str) -> tuple[Engine, EngineChoice]:
        import onnxruntime as ort

        provider = PROVIDERS[name]
        if provider not in ort.get_available_providers():
            raise EngineError(
                f"the installed onnxruntime {ort.__version__} has no {provider}: pip install "
                "onnxruntime-gpu in its place, or NVIDIA's wheel for JetPack on a Jetson"
            )
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # CUDA and cuDNN where pip put them
        wish: Provider = provider
        if name == "onnxruntime-tensorrt":
            from edgecap.runtime.engines.tensorrt_plan import default_folder

            folder = default_folder() / "onnxruntime"
            folder.mkdir(parents=True, exist_ok=True)
            kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
            wish = (provider, {**kept, "trt_fp16_enable": "1"})
        providers = [wish, "CPUExecutionProvider"]
        engine = OnnxEngine(self._bundle, threads=self._threads, providers=providers)
        if provider not in engine.providers:
            raise EngineError(
                f"onnxruntime does not start its {provider}: its libraries of CUDA, cuDNN or "
                "TensorRT do not load; install the versions that it was built for"
            )
        return engine, EngineChoice(name, name, f"ONNX Runtime {ort.__version__}, {provider}")

    def _cpu(self) -> tuple[Engine, EngineChoice]:
        import onnxruntime as ort

        engine = OnnxEngine(self._bundle, threads=self._threads)
        many = "1 thread" if engine.threads == 1 else f"{engine.threads} threads"
        return engine, EngineChoice(CPU, CPU, f"ONNX Runtime {ort.__version__} on the CPU, {many}")

    def _native(self) -> tuple[Engine, EngineChoice]:
        from edgecap.runtime.engines.native_step import NativeStepEngine

        engine = NativeStepEngine(self._bundle, threads=self._threads)
        many = "1 thread" if engine.threads == 1 else f"{engine.threads} threads"
        summary = f"encoder: {engine.encoder.summary}; decoder: own CPU kernels "
        summary += f"in {engine.precision}"
        return engine, EngineChoice(NATIVE, NATIVE, f"{summary} ({engine.kernel}), {many}")
