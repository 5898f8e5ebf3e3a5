"""Fixtures that several floors' tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs, clips and weights beside the checkout; skips where absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("no ../shared folder with photographs and weights beside this checkout")
    return folder


@pytest.fixture(scope="session")
def yolox(shared: Path) -> Path:
    """A YOLOX model in ONNX beside the checkout; skips where absent."""
    path = shared / "weights" / "yolox_nano_coco" / "yolox_nano.onnx"
    if not path.is_file():
        pytest.skip("no YOLOX model beside this checkout")
    return path


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny real bundle: ``make_bundle(recurrent=False, **manifest_fields)`` -> path."""
    from edgecap.runtime.bundle import write_bundle

    def make(recurrent: bool = False, **changes: Any) -> Path:
        import tiny_models

        path = tmp_path_factory.mktemp("bundle") / "tiny.edgecap"
        write_bundle(path, *tiny_models.parts(recurrent, **changes))
        return path

    return make


@pytest.fixture(scope="session")
def tiny_bundle(make_bundle: Callable[..., Path]) -> Path:
    """Path of a tiny real bundle of the attention family; never changed by tests."""
    return make_bundle()
