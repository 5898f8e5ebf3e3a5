"""Micro benchmarks of one caption with the default bundle: resize, encoder, decoding, all of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import edgecap
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.image import resize_image

data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return edgecap.load()


def test_resize(benchmark: Any) -> None:
    out = benchmark(resize_image, data.astronaut(), 224)
    assert out.shape == (224, 224, 3)


def test_encode(benchmark: Any, captioner: Captioner) -> None:
    encoded = benchmark(captioner.encode, data.astronaut())
    assert np.isclose(np.linalg.norm(encoded.features), 1, atol=1e-3)


@pytest.mark.parametrize("beams", [1, 4])
def test_decode(benchmark: Any, captioner: Captioner, beams: int) -> None:
    encoded = captioner.encode(data.astronaut())
    captions = benchmark(captioner.decode, encoded, captioner.options(beams=beams))
    assert captions[0].text


@pytest.mark.parametrize("beams", [1, 4])
def test_caption(benchmark: Any, captioner: Captioner, beams: int) -> None:
    caption = benchmark(captioner, data.astronaut(), channels="RGB", beams=beams)
    assert caption.text
