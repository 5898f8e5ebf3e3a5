"""The public face: names, lazy imports and finding models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edgecap
from edgecap import models
from edgecap.runtime.errors import BundleError, OptionsError


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_is_light() -> None:
    code = "import sys, edgecap; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(python(code).split())
    heavy = {"torch", "cv2", "onnxruntime", "numpy", "tokenizers", "msgspec", "click", "rich"}
    assert not loaded & heavy


def test_captioning_needs_neither_torch_nor_onnx(tiny_bundle: Path) -> None:
    code = (
        "import sys, numpy, edgecap\n"
        f"captioner = edgecap.load({str(tiny_bundle)!r}, threads=1)\n"
        "print(captioner(numpy.zeros((9, 9, 3), 'uint8'), channels='RGB').text)\n"
        "assert not {'torch', 'onnx', 'PIL', 'transformers', 'rich', 'click'} & set(sys.modules)"
    )
    assert python(code)


def test_public_names() -> None:
    for name in edgecap.__all__:
        assert getattr(edgecap, name) is not None
    assert set(edgecap.__all__) <= set(dir(edgecap))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        edgecap.lod  # noqa: B018
    assert edgecap.__version__[0].isdigit()


def test_load_by_path(tiny_bundle: Path) -> None:
    for model in (tiny_bundle, str(tiny_bundle)):
        captioner = edgecap.load(model, threads=1)
        assert isinstance(captioner, edgecap.Captioner)
        assert captioner.name == "tiny"
        assert captioner(np.zeros((9, 9), np.uint8)).text
    with pytest.raises(OptionsError, match="threads is 0"):
        edgecap.load(tiny_bundle, threads=0)


def test_load_by_name(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.edgecap").symlink_to(tiny_bundle)
    (tmp_path / "model_card.md").touch()
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    assert list(models.bundled()) == ["small"]
    assert edgecap.load("small", threads=1).name == "tiny"
    with pytest.raises(
        BundleError, match=r"no model is named 'large'; bundled models: small; .*\.edgecap file"
    ):
        edgecap.load("large")


def test_paths_that_are_no_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for model in ("./model", "model.edgecap", Path("model")):
        with pytest.raises(BundleError, match="does not exist"):
            edgecap.load(model)
    (tmp_path / "model").write_text("hello")
    with pytest.raises(BundleError, match="damaged"):
        edgecap.load("model")
