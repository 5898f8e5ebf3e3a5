"""The default model as one file: the captions of real photographs are the bundle's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from single_file_models import SingleFile, check_equal

from edgecap.export.single_file import SingleFileOptions, write_single_file
from edgecap.models import bundled
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.image import load_image

if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)

PHOTOGRAPHS = 50


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(bundled()["default"])


@pytest.fixture(scope="module")
def photographs(bundle: Bundle, shared: Path) -> list[np.ndarray]:
    """Fifty of COCO, as the default model takes them."""
    folder = shared / "data" / "coco_captions"
    names = (folder / "val.txt").read_text().split()[:PHOTOGRAPHS]
    captioner = Captioner(bundle, threads=1)
    return [captioner.resize(load_image(folder / "images" / name)) for name in names]


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"beams": 1},
        {
            "beams": 3,
            "no_repeat_ngram_size": 2,
            "repetition_penalty": 1.3,
            "early_stopping": "never",
            "num_return_sequences": 3,
        },
    ],
    ids=["default", "greedy", "processors"],
)
def test_photographs_have_the_same_captions(
    bundle: Bundle, photographs: list[np.ndarray], tmp_path: Path, asked: dict[str, Any]
) -> None:
    path = write_single_file(bundle, tmp_path / "caption.onnx", SingleFileOptions(**asked))
    captioner, file = Captioner(bundle, threads=1), SingleFile(path)
    said = [check_equal(captioner, file, pixels, **asked) for pixels in photographs]
    assert len(said) == PHOTOGRAPHS
    assert len(set.union(*said)) > PHOTOGRAPHS / 2


def test_the_file_is_as_small_as_the_graphs_in_it(bundle: Bundle, tmp_path: Path) -> None:
    path = write_single_file(bundle, tmp_path / "caption.onnx", SingleFileOptions())
    graphs = sum(len(bundle.files[name]) for name in ("encoder.onnx", "decoder.onnx"))
    assert path.stat().st_size < 1.02 * graphs
