"""The model that ships: what it scores, what it costs, and what it says it cannot describe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import edgecap
from edgecap.models import bundled
from edgecap.runtime.captioner import Captioner

if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)

data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return edgecap.load("default")


def test_the_bundle_is_small_and_says_where_it_comes_from(captioner: Captioner) -> None:
    assert captioner.path.stat().st_size <= 12_000_000
    manifest = captioner.manifest
    assert manifest.licence
    assert len(manifest.training_data) >= 2
    assert all(entry.licence for entry in manifest.training_data)
    assert {"command", "seed", "date"} <= manifest.provenance.keys()


def test_int8_costs_at_most_a_hundredth_of_the_float_models_cider(captioner: Captioner) -> None:
    # Lists of a hundred pictures say nothing: one caption that flips is worth as much.
    large = 0
    for splits in captioner.manifest.metrics.values():
        for measured in splits.values():
            if measured["int8"]["images"] < 250:
                continue
            large += 1
            assert measured["int8"]["CIDEr"] >= 0.99 * measured["float32"]["CIDEr"]
    assert large == 3


def test_it_reaches_the_quality_floor_on_the_test_photographs(shared: Path) -> None:
    from edgecap.cli.eval import command

    folder = shared / "data" / "flickr8k"
    words = ["default", "--data", f"flickr8k:{folder}", "--split", "test", "--json"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert scores["images"] == 500
    assert scores["CIDEr"] >= 0.64
    assert scores["BLEU-4"] >= 0.23
    stated = edgecap.load().manifest.metrics["flickr8k"]["test"]["int8"]
    assert scores["CIDEr"] == pytest.approx(stated["CIDEr"], abs=0.02)


def no_photographs() -> dict[str, np.ndarray]:
    """Kinds and seeds that the fit never saw beside some that it did."""
    generator = np.random.default_rng(987654)
    lines = np.full((480, 640, 3), 255, np.uint8)
    import cv2

    for y in range(30, 470, 26):
        text = "The quick brown fox jumps over the lazy dog."
        cv2.putText(lines, text, (12, y), cv2.FONT_HERSHEY_COMPLEX, 0.6, (0, 0, 0), 1)
    checker = data.checkerboard()
    return {
        "black": np.zeros((720, 1280, 3), np.uint8),
        "white": np.full((300, 300, 3), 255, np.uint8),
        "noise": generator.integers(0, 256, (480, 640, 3), np.uint8),
        "text": lines,
        "checkerboard": np.repeat(checker[..., None], 3, 2),
    }


@pytest.mark.parametrize("name", list(no_photographs()))
def test_what_is_no_photograph_is_not_sure(captioner: Captioner, name: str) -> None:
    caption = captioner(no_photographs()[name], channels="RGB")
    assert not caption.sure
    assert str(caption).endswith("(not sure)")


def test_photographs_are_mostly_sure(captioner: Captioner, shared: Path) -> None:
    folder = shared / "data" / "coco_captions"
    names = (folder / "val.txt").read_text().split()[:60]
    captions = captioner([folder / "images" / name for name in names])
    assert np.mean([caption.sure for caption in captions]) > 0.6
