"""What this machine can run, and a trial of a model on it.

Facts are looked up, never guessed; a verdict says what was run and what was not.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import SpecialTokens
from edgecap.runtime.engines.base import Engine
from edgecap.runtime.errors import EdgeCapError, ImageError

PICTURES = 10
LEAST_EQUAL = 0.8  # of the captions; with fewer a trial has failed
# Of these the instructions matter that ONNX Runtime's integer and half kernels use.
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
TRIAL_TARGET = "sm_86"  # what is built for where there is no GPU
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """How a model did with TensorRT.

    ran : "nothing", "built" (engines were built, none was run) or "captions"
    equal, pictures : how many of how many captions had ONNX Runtime's very tokens
    failed : something was tried and did not do what it should
    """

    ran: str
    verdict: str
    precision: str = ""
    equal: int = 0
    pictures: int = 0
    failed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def machine_facts() -> dict[str, str]:
    """Title -> what is here, in words."""
    return {
        "edgecap": _version("edgecap"),
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "onnxruntime": _onnxruntime(),
        "video": _video(),
        "gstreamer": _gstreamer(),
        "cameras": ", ".join(str(p) for p in sorted(Path("/dev").glob("video*"))) or "none",
        "tensorrt": _tensorrt(),
        "cuda": _cuda(),
    }


def try_model(
    bundle: Bundle,
    pictures: Sequence[npt.NDArray[np.uint8]],
    precision: str,
    folder: Path | None = None,
    say: Say = lambda line: None,
) -> Trial:
    """Build a model's engines and, on a GPU, compare their captions with ONNX Runtime's.

    pictures : uint8 RGB [H, W, 3]
    folder : of engines; the cache folder by default, a temporary one where nothing can run them
    """
    from edgecap.export.tensorrt.build import BuildOptions, ensure_engines, usual_beams
    from edgecap.runtime.engines.cuda_memory import find_device
    from edgecap.runtime.engines.tensorrt_library import find_library
    from edgecap.runtime.engines.tensorrt_plan import default_folder

    library = find_library()
    if library is None:
        return Trial("nothing", "no TensorRT is installed: nothing was built, nothing was run")
    beams = usual_beams(bundle)
    try:
        device = find_device()
        if device is None:
            if not library.is_rtx:
                return Trial("nothing", f"{library} and no GPU: nothing was built, nothing was run")
            with tempfile.TemporaryDirectory() as scratch:
                options = BuildOptions(precision=precision, target=TRIAL_TARGET, beams=beams)
                ensure_engines(bundle, library, None, folder or Path(scratch), options, say=say)
            return Trial(
                "built",
                f"built only: {library} built both engines in {precision} for {TRIAL_TARGET}; "
                "there is no GPU here, so nothing was run",
                precision,
            )
        from edgecap.runtime.engines.tensorrt import TensorRTEngine

        folder = folder or default_folder()
        options = BuildOptions(precision=precision, beams=beams)
        ensure_engines(bundle, library, device, folder, options, say=say)
        engine = TensorRTEngine(bundle, folder, precision=precision, library=library)
        return compare(bundle, engine, pictures, f"{library} on {device.name}", precision)
    except ModuleNotFoundError as error:
        return Trial("nothing", f"{library}, but no {error.name}: pip install 'edgecap[gpu]'")
    except EdgeCapError as error:
        return Trial("nothing", f"failed: {error}", precision, failed=True)


def compare(
    bundle: Bundle,
    engine: Engine,
    pictures: Sequence[npt.NDArray[np.uint8]],
    where: str,
    precision: str,
) -> Trial:
    """Caption each picture with ``engine`` and with ONNX Runtime, and count equal captions."""
    captioner = Captioner(bundle)
    special = bundle.manifest.tokenizer
    ids = SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)
    options = captioner.options()
    equal = 0
    for picture in pictures:
        expected = captioner.search(captioner.encode(picture), options).hypotheses[0][0]
        encoded = engine.encode(captioner.resize(picture)[None])
        found = generate(engine, encoded, options, ids).hypotheses[0][0]
        equal += tuple(found.tokens) == tuple(expected.tokens)
    verdict = f"ran: {equal} of {len(pictures)} captions have ONNX Runtime's tokens, with {where}"
    # Half precision may turn a close choice between two captions; most must be the same.
    few = equal < LEAST_EQUAL * len(pictures)
    return Trial("captions", verdict, precision, equal, len(pictures), failed=few)


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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    facts: dict[str, str] = {}
    for line in lines:
        title, _, text = line.partition(":")
        facts.setdefault(title.strip().lower(), text.strip())
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    known = [flag for flag in CPU_FLAGS if flag in flags]
    name = facts.get("model name") or platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} threads; {', '.join(known) or 'no flags known'}"


def _onnxruntime() -> str:
    import onnxruntime as ort

    return f"{ort.__version__}; {', '.join(ort.get_available_providers())}"


def _video() -> str:
    import cv2

    ways = cv2.videoio_registry.getCameraBackends() + cv2.videoio_registry.getStreamBackends()
    here = {way for way in ways if cv2.videoio_registry.hasBackend(way)}
    names = sorted(cv2.videoio_registry.getBackendName(way) for way in here)
    return f"OpenCV {cv2.__version__}; {', '.join(names)}"


def _gstreamer() -> str:
    tool = shutil.which("gst-launch-1.0")
    return f"{tool}" if tool else "no gst-launch-1.0"


def _tensorrt() -> str:
    from edgecap.runtime.engines.tensorrt_library import LIBRARIES, find_library

    found = [library for name in LIBRARIES if (library := find_library(name))]
    return ", ".join(map(str, found)) or "none"


def _cuda() -> str:
    from edgecap.runtime.engines.cuda_memory import open_cuda

    try:
        device = open_cuda().device
    except EdgeCapError as error:
        return f"no device: {error}"
    return f"{device.name}, compute capability {device.compute_capability}"
