"""Micro benchmarks of single parts: tokenizer, bundle, gate, decoder steps, a stream of frames.

Those of preprocessing, encoder and captions are in test_caption.py, of beam search in
test_beam_step.py. `make bench` compares all with the saved ones: see regressions.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgecap.models import bundled
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.base import Engine
from edgecap.runtime.engines.native_step import NativeStepEngine
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.streams import Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.gate import make_gate

data = pytest.importorskip("skimage.data")
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)
STEPS, FRAMES = 11, 20
ENGINES: dict[str, Callable[..., Engine]] = {"onnxruntime": OnnxEngine, "native": NativeStepEngine}


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(bundled()["default"])


@pytest.fixture(scope="module", params=ENGINES)
def captioner(request: pytest.FixtureRequest, bundle: Bundle) -> Captioner:
    return Captioner(bundle, engine=ENGINES[request.param](bundle, threads=2))


def test_bundle_load(benchmark: Any) -> None:
    assert benchmark(read_bundle, bundled()["default"]).manifest.name


def test_tokenizer(benchmark: Any, bundle: Bundle) -> None:
    captioner = Captioner(bundle, engine=OnnxEngine(bundle, threads=1))
    caption = captioner(data.astronaut(), channels="RGB")
    assert benchmark(captioner.tokenizer.decode, caption.tokens) == caption.text


def test_gate_of_a_moving_picture(benchmark: Any) -> None:
    with open_source("test://moving", realtime=False) as source:
        frames = [source.read() for _ in range(FRAMES)]
    gate = make_gate(StreamOptions(gate="thumbnail"), False, False)

    def decide() -> int:
        return sum(gate.decide(frame).passed for frame in frames if isinstance(frame, Frame))

    assert 0 < benchmark(decide) <= FRAMES


@pytest.mark.parametrize("beams", [1, 4])
def test_decoder_steps(benchmark: Any, captioner: Captioner, beams: int) -> None:
    """Steps of one caption without a search: each row goes on with the same word."""
    engine = captioner.engine
    encoded = captioner.encode(data.astronaut())
    tokens = np.full(beams, captioner.manifest.tokenizer.bos, np.int64)
    parents = np.arange(beams)
    masks = []
    for position in range(STEPS):
        mask = np.zeros((beams, beams * engine.max_positions), bool)
        for row in range(beams):
            mask[row, row : (position + 1) * beams : beams] = True
        masks.append(mask)

    def decode() -> np.ndarray:
        runner = engine.begin(encoded, beams)
        for position, mask in enumerate(masks):
            logits = runner.step(tokens, position, parents, mask)
        return logits

    logits = benchmark(decode)
    assert logits.shape == (beams, engine.vocab_size)
    assert np.isfinite(logits).all()


def test_stream(benchmark: Any, captioner: Captioner) -> None:
    """Twenty frames from the source to the caption, without a gate."""

    def run() -> int:
        with open_source(f"test://moving?frames={FRAMES}", realtime=False) as source:
            return Pipeline(source, captioner, options=StreamOptions(gate="none")).run().captions

    assert benchmark(run) == FRAMES
