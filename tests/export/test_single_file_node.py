"""The one file in Node: examples/node/caption.mjs says what ``Captioner`` says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
data = pytest.importorskip("skimage.data")

import tiny_models  # noqa: E402
from single_file_models import pictures  # noqa: E402

import edgecap  # noqa: E402
from edgecap.export.single_file import SingleFileOptions, write_single_file  # noqa: E402
from edgecap.models import bundled  # noqa: E402
from edgecap.runtime.bundle import Bundle, read_bundle  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "node"
if shutil.which("node") is None:
    pytest.skip("no node on this machine", allow_module_level=True)
if not (EXAMPLE / "node_modules" / "onnxruntime-node").is_dir():
    pytest.skip(
        "no onnxruntime-node: npm install --ignore-scripts in examples/node",
        allow_module_level=True,
    )


def node(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["node", str(EXAMPLE / "caption.mjs"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def check(bundle: Bundle, photographs: list[np.ndarray], folder: Path) -> None:
    model = write_single_file(bundle, folder / "caption.onnx", SingleFileOptions())
    captioner = Captioner(bundle, threads=1)
    for pixels in photographs:
        (folder / "picture.rgb").write_bytes(pixels.tobytes())
        done = node(model, folder / "picture.rgb")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        expected = captioner.decode(captioner.engine.encode(pixels[None]))[0]
        assert found["caption"] == expected.text
        assert tuple(found["tokens"]) == expected.tokens
        assert found["score"] == pytest.approx(expected.score, abs=1e-4)
        assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-3)
        assert found["sure"] == expected.sure


def test_photographs(tmp_path: Path) -> None:
    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    captioner = edgecap.load("default")
    photographs = [captioner.resize(getattr(data, name)()) for name in ("cat", "astronaut")]
    check(read_bundle(bundled()["default"]), photographs, tmp_path)


@pytest.mark.parametrize("recurrent", [False, True])
def test_both_kinds_of_state(recurrent: bool, make_bundle, tmp_path: Path) -> None:
    check(read_bundle(make_bundle(recurrent)), list(pictures(2, tiny_models.SIZE)), tmp_path)


def test_a_picture_of_another_size_is_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    model = write_single_file(bundle, tmp_path / "caption.onnx", SingleFileOptions())
    (tmp_path / "picture.rgb").write_bytes(bytes(12))
    done = node(model, tmp_path / "picture.rgb")
    assert done.returncode == 2
    assert done.stderr == (f"{tmp_path / 'picture.rgb'} has 12 bytes; give 3072, 32 x 32 x 3\n")
