"""A trial of a model with every engine: built, run, compared with ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.doctor.advice import advise
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import SpecialTokens
from edgecap.runtime.engines.base import Engine
from edgecap.runtime.engines.choose import CPU, NATIVE, PROVIDERS, Opener, in_one_line
from edgecap.runtime.engines.cuda_memory import driver_problem
from edgecap.runtime.errors import EdgeCapError, EngineError, ImageError

PICTURES = 10
# Of the captions; with fewer a trial has failed. Of a right engine in int8 one in twelve differs:
# six of ten are missed once in 1300 checks, eight of ten once in 20; wrong ones had none or one.
LEAST_EQUAL = 0.6
TRIAL_TARGET = "sm_86"  # what is built for where there is no GPU
Pictures = Sequence[npt.NDArray[np.uint8]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """How a model did with one engine.

    ran : "nothing", "built" (engines were built, none was run) or "captions"
    advice : what to do about it; empty where there is nothing to do
    equal, pictures : how many of how many captions had the very tokens of ONNX Runtime on the CPU
    failed : something was tried and did not do what it should
    """

    ran: str
    verdict: str
    engine: str = "tensorrt"
    precision: str = ""
    equal: int = 0
    pictures: int = 0
    failed: bool = False
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def try_engines(
    bundle: Bundle,
    pictures: Pictures,
    precision: str,
    folder: Path | None = None,
    say: Say = lambda line: None,
) -> Iterator[Trial]:
    """A trial of every engine, the best one first.

    pictures : uint8 RGB [H, W, 3]
    precision : "fp32", "fp16" or "int8", of TensorRT; the CUDA kernels take fp16 for int8
    folder : of TensorRT's engines; the cache folder by default, a temporary one without a GPU
    """
    own = "fp32" if precision == "fp32" else "fp16"
    yield _tried("tensorrt", lambda: try_tensorrt(bundle, pictures, precision, folder, say))
    yield _tried("cuda", lambda: try_cuda(bundle, pictures, own))
    for name in PROVIDERS:
        yield _tried(name, lambda name=name: try_provider(bundle, pictures, name))  # type: ignore[misc]
    yield _tried(NATIVE, lambda: try_native(bundle, pictures))
    yield _tried(CPU, lambda: try_cpu(bundle, pictures))


def _tried(name: str, trial: Callable[[], Trial]) -> Trial:
    """The trial's outcome, whatever came of it, with what to do."""
    try:
        done = trial()
    except (EdgeCapError, ImportError, OSError, RuntimeError) as error:
        done = Trial("nothing", f"failed: {in_one_line(error)}", failed=True)
    done = replace(done, engine=name)
    return replace(done, advice=advise(done.verdict, name, failed=done.failed))


def try_tensorrt(
    bundle: Bundle, pictures: Pictures, precision: str, folder: Path | None, say: Say
) -> Trial:
    """Build a model's engines and, on a GPU, compare their captions."""
    from edgecap.runtime.engines.cuda_memory import find_device
    from edgecap.runtime.engines.tensorrt_library import find_library
    from edgecap.runtime.engines.tensorrt_plan import default_folder

    library = find_library()
    if library is None:
        return Trial("nothing", "no TensorRT is installed: nothing was built, nothing was run")
    from edgecap.export.tensorrt.build import BuildOptions, ensure_engines, usual_beams

    beams = usual_beams(bundle)
    device = find_device()
    if device is None:
        if not library.is_rtx:
            return Trial("nothing", f"{library} and no GPU: nothing was built, nothing was run")
        with tempfile.TemporaryDirectory() as scratch:
            options = BuildOptions(precision=precision, target=TRIAL_TARGET, beams=beams)
            ensure_engines(bundle, library, None, folder or Path(scratch), options, say=say)
        verdict = f"built only: {library} built both engines in {precision} for {TRIAL_TARGET}; "
        return Trial("built", verdict + "no GPU here, so nothing was run", precision=precision)
    from edgecap.runtime.engines.tensorrt import TensorRTEngine

    folder = folder or default_folder()
    options = BuildOptions(precision=precision, beams=beams)
    ensure_engines(bundle, library, device, folder, options, say=say)
    engine = TensorRTEngine(bundle, folder, precision=precision, library=library)
    return compare(bundle, engine, pictures, f"{library} on {device.name}", precision)


def try_cuda(bundle: Bundle, pictures: Pictures, precision: str) -> Trial:
    """Decode with this project's own kernels what the CPU encoded, and compare the captions."""
    if problem := driver_problem():
        return Trial("nothing", f"{problem}: nothing was run")
    from edgecap.runtime.engines.cuda import CudaEngine
    from edgecap.runtime.engines.cuda_decoder import CudaDecoder
    from edgecap.runtime.engines.cuda_memory import open_cuda
    from edgecap.runtime.engines.onnx import OnnxEngine

    cuda = open_cuda()
    decoder = CudaDecoder(bundle, cuda, precision=precision)
    engine = CudaEngine(OnnxEngine(bundle), decoder)
    return compare(bundle, engine, pictures, f"own kernels on {cuda.device.name}", precision)


def try_provider(bundle: Bundle, pictures: Pictures, name: str) -> Trial:
    """Run both graphs by one of ONNX Runtime's providers of the GPU, and compare the captions."""
    import onnxruntime as ort

    if problem := driver_problem():
        return Trial("nothing", f"{problem}: nothing was run")
    if PROVIDERS[name] not in ort.get_available_providers():
        return Trial("nothing", f"this onnxruntime has no {PROVIDERS[name]}: nothing was run")
    engine, choice = Opener(bundle, None).open(name)
    return compare(bundle, engine, pictures, choice.summary, "as in the bundle")


def try_native(bundle: Bundle, pictures: Pictures) -> Trial:
    """Decode by this project's own steps on the CPU, and compare the captions."""
    from edgecap.runtime.engines.native_step import NativeStepEngine

    try:
        engine = NativeStepEngine(bundle)
    except EngineError as error:  # a decoder that they do not compute is no failure
        return Trial("nothing", f"{in_one_line(error)}: nothing was run")
    where = f"own CPU kernels ({engine.kernel})"
    return compare(bundle, engine, pictures, where, engine.precision)


def try_cpu(bundle: Bundle, pictures: Pictures) -> Trial:
    """Compare the C++ beam search with the specification in numpy, over the same graphs."""
    from edgecap.runtime.decoding.native import NativeSearch
    from edgecap.runtime.decoding.reference import ReferenceSearch

    captioner = Captioner(bundle)
    equal = 0
    for picture in pictures:
        encoded = captioner.encode(picture)
        a, b = (
            generate(captioner.engine, encoded, captioner.options(), special_of(bundle), make=make)
            for make in (NativeSearch, ReferenceSearch)
        )
        equal += a.hypotheses[0][0].tokens == b.hypotheses[0][0].tokens
    verdict = f"ran: {equal} of {len(pictures)} captions of the C++ beam search have the tokens of "
    return Trial(
        "captions",
        f"{verdict}the specification in numpy",
        precision="as in the bundle",
        equal=equal,
        pictures=len(pictures),
        failed=equal < len(pictures),
    )


def compare(
    bundle: Bundle, engine: Engine, pictures: Pictures, where: str, precision: str
) -> Trial:
    """Caption each picture with ``engine`` and with ONNX Runtime on the CPU; count equal captions.

    Half precision may turn a close choice between two captions; most must be the same.
    """
    captioner = Captioner(bundle)
    options, special = captioner.options(), special_of(bundle)
    equal = 0
    for picture in pictures:
        expected = captioner.search(captioner.encode(picture), options).hypotheses[0][0]
        encoded = engine.encode(captioner.resize(picture)[None])
        found = generate(engine, encoded, options, special).hypotheses[0][0]
        equal += tuple(found.tokens) == tuple(expected.tokens)
    verdict = f"ran: {equal} of {len(pictures)} captions have ONNX Runtime's tokens, with {where}"
    few = equal < LEAST_EQUAL * len(pictures)
    return Trial(
        "captions",
        verdict,
        precision=precision,
        equal=equal,
        pictures=len(pictures),
        failed=few,
    )


def special_of(bundle: Bundle) -> SpecialTokens:
    """The bundle's special tokens."""
    special = bundle.manifest.tokenizer
    return SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)


def trial_pictures(folder: Path | None) -> list[npt.NDArray[np.uint8]]:
    """At most ten pictures of a folder, or drawn ones. Raises ``ImageError`` for a folder of none.

    uint8 RGB [H, W, 3] each.
    """
    from edgecap.runtime.image import load_image

    if folder is None:
        return [_drawn(number) for number in range(PICTURES)]
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            found.append(load_image(path))
        except ImageError:
            continue
        if len(found) == PICTURES:
            break
    if not found:
        raise ImageError(f"{folder} holds no picture; give a folder of JPEG or PNG files")
    return found


def _drawn(number: int) -> npt.NDArray[np.uint8]:
    """A gradient and a square; each number gives another picture."""
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 25 * (number + 1), 320)
    picture[..., 1] = np.linspace(250 - 20 * number, 0, 240)[:, None]
    picture[20 * number : 20 * number + 60, 60:140] = (200, 40 * (number % 6), 90)
    return picture
