"""The shipped model by the decoder kernels, on photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import SpecialTokens
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.cuda_decoder import CudaDecoder
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.image import load_image

MODEL = Path(__file__).resolve().parents[3] / "edgecap" / "models" / "default.edgecap"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(MODEL)


@pytest.fixture(scope="module")
def photographs(shared: Path, captioner: Captioner) -> Encoded:
    files = sorted((shared / "data" / "flickr8k").rglob("*.jpg"))[:4]
    return captioner.encode([load_image(path) for path in files])


def right(captioner: Captioner, encoded: Encoded, beams: int) -> tuple[Any, SpecialTokens, Decoded]:
    tokens = captioner.manifest.tokenizer
    special = SpecialTokens(bos=tokens.bos, eos=tokens.eos, pad=tokens.pad)
    options = captioner.options(beams=beams, num_return_sequences=beams)
    engine = captioner.engine
    assert isinstance(engine, OnnxEngine)
    return options, special, generate(engine, encoded, options, special)


@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 1e-3), ("int8", 1e-3)]
)
def test_photographs(
    kernels: Any, captioner: Captioner, photographs: Encoded, precision: str, tolerance: float
) -> None:
    """int8 is exact but for rounding: the bundle's own weights have that scale."""
    library, cuda = kernels
    decoder = CudaDecoder(read_bundle(MODEL), cuda, precision, library)
    for beams in (1, 4):
        options, special, wanted = right(captioner, photographs, beams)
        found = decoder.decode(photographs, options, special)
        assert found.steps == wanted.steps
        for a, b in zip(wanted.hypotheses, found.hypotheses, strict=True):
            assert [h.tokens for h in a][:1] == [h.tokens for h in b][:1]
            if precision == "fp32":
                assert [h.tokens for h in a] == [h.tokens for h in b]
            assert b[0].score == pytest.approx(a[0].score, abs=tolerance)


def test_one_picture_is_selected_by_the_last_block(
    kernels: Any, captioner: Captioner, photographs: Encoded
) -> None:
    library, cuda = kernels
    decoder = CudaDecoder(read_bundle(MODEL), cuda, "fp32", library)
    one = Encoded(1, {n: np.copy(a[:1]) for n, a in photographs.memory.items()}, {}, None, None)
    options, special, wanted = right(captioner, one, 4)
    found = decoder.decode(one, options, special)
    assert [h.tokens for h in found.hypotheses[0]] == [h.tokens for h in wanted.hypotheses[0]]
    # Two layers of eight launches and one that ends in the selection.
    assert decoder.describe().launches == 17
    graphs = ("unrolled graph", "graph with a WHILE node")  # by the driver's version
    assert decoder.describe().loop in (("plain",) if cuda.device.name == "CPU" else graphs)
