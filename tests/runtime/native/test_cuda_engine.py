"""From `edgecap.load(engine="cuda")` to a caption: real choice, real cuda-python, real decoder.

The driver (tests/cuda_driver.c) and the kernels are emulated on the CPU; nothing of Python's is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from emulated_driver import EmulatedDriver, build

from edgecap.models import bundled
from edgecap.runtime.engines.cuda_library import CudaLibrary

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the emulated driver is Linux's"),
    pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model"),
]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> EmulatedDriver:
    pytest.importorskip("cuda.bindings")
    return build(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def library(kernels: tuple[CudaLibrary, Any]) -> str:
    if kernels[0].architectures != ("emulated",):
        pytest.skip("a real GPU needs no emulated driver")
    return str(kernels[0].path)


def test_a_caption_by_the_kernels(driver: EmulatedDriver, library: str, tmp_path: Path) -> None:
    out = driver.run(
        """
        import threading
        import numpy as np
        import edgecap
        captioner = edgecap.load("default", engine="cuda", threads=1)
        plain = edgecap.load("default", engine="onnxruntime", threads=1)
        print(captioner.engine_choice.lines()[0])
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 256, (40, 30, 3), np.uint8) for _ in range(2)]
        expected = [plain(p, channels="RGB", beams=2) for p in pictures]
        found = [captioner(pictures[0], channels="RGB", beams=2)]
        together = captioner(pictures, channels="RGB", beams=2)
        assert found[0].tokens == expected[0].tokens
        assert [c.tokens for c in together] == [c.tokens for c in expected]
        assert max(abs(a.score - b.score) for a, b in zip(found, expected)) < 0.02
        said = {}
        def work(number):
            said[number] = [captioner(p, channels="RGB", beams=2).tokens for p in pictures]
        threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert said == {n: [c.tokens for c in expected] for n in range(2)}
        print("equal")
        """,
        EDGECAP_CUDA_LIBRARY=library,
        XDG_CACHE_HOME=str(tmp_path),  # engines of this machine's are not looked at
    )
    lines = out.splitlines()
    assert lines[0].startswith("cuda: encoder: ONNX Runtime ")
    assert lines[0].endswith("decoder: own CUDA kernels, a caption a launch")
    assert lines[1] == "equal"


def test_the_doctor_tries_the_kernels(driver: EmulatedDriver, library: str, tmp_path: Path) -> None:
    for seed in range(2):
        picture = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{seed}.png"), picture)
    out = driver.run(
        f"""
        sys.modules["tensorrt_rtx"] = sys.modules["tensorrt"] = None
        from edgecap.cli.main import run
        run(["doctor", "default", "--json", "--pictures", {str(tmp_path)!r}])
        """,
        EDGECAP_CUDA_LIBRARY=library,
        XDG_CACHE_HOME=str(tmp_path),
    )
    told = json.loads(out)
    tried = {trial["engine"]: trial for trial in told["trials"]}
    assert (tried["cuda"]["pictures"], tried["cuda"]["precision"]) == (2, "fp16")
    assert tried["cuda"]["equal"] == 2, "half precision decided otherwise, or the kernels are wrong"
    assert "code for emulated; they run on this GPU" in told["machine"]["kernels"]
    assert tried["tensorrt"]["verdict"].startswith("no TensorRT is installed")
    # Nothing encodes on the GPU here, so that auto does not take the kernels.
    assert told["engine"]["engine"] == "native"
