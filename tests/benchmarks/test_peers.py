"""The peers of the comparison: who may be timed, and whether a peer's steps are the model's."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PEERS = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a file of the peers, which find each other by their plain names."""
    monkeypatch.syspath_prepend(PEERS)
    for path in PEERS.glob("*.py"):  # another folder's file may have the same name
        monkeypatch.delitem(sys.modules, path.stem, raising=False)

    def load(name: str) -> Any:
        spec = importlib.util.spec_from_file_location(f"peers_{name}", PEERS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    yield load
    for path in PEERS.glob("*.py"):
        sys.modules.pop(path.stem, None)


class Said:
    """A process that says the same tokens each time."""

    def __init__(self, entry: Any, tokens: list[int], error: str = "") -> None:
        self.entry, self._tokens, self.asked = entry, tokens, 0
        self.loaded = {"error": error} if error else {"load_s": 0.0}

    def ask(self, picture: Path, beams: int, tokens: int, side: int = 0) -> dict[str, Any]:
        self.asked += 1
        return {"tokens": self._tokens, "ms": 2.0 + beams, "step_ms": None, "peak_rss_mb": 1.0}


def test_a_float_peer_with_other_tokens_gets_no_time(peers: Any) -> None:
    run = peers("run")
    entry = sys.modules["entries"].Entry
    right = Said(entry("transformers", "a.py"), [3, 1, 2])
    same = Said(entry("same", "b.py"), [3, 1, 2])
    other = Said(entry("other", "c.py"), [3, 1, 4])
    int8 = Said(entry("int8", "d.py", exact=False), [3, 1, 4])
    broken = Said(entry("broken", "e.py"), [], error="ImportError: nothing there")
    asked = run.Asked("transformers", [Path("a.npy"), Path("b.npy")], tokens=3, rounds=5)
    table = run.compare([right, same, other, int8, broken], asked, beams=4)
    assert table["same"]["same_captions"] == "2 of 2"
    assert table["same"]["ms"]["median"] == 6.0
    assert "ms" not in table["other"]
    assert "not timed" in table["other"]["could_not"]
    assert other.asked == 2  # once for each picture, and never again
    assert table["int8"]["same_captions"] == "0 of 2"
    assert "ms" in table["int8"]
    assert table["broken"] == {"could_not": "ImportError: nothing there"}
    assert broken.asked == 0


def test_openvino_says_what_onnx_runtime_says(peers: Any, tiny_bundle: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is in the peers' own environment alone")
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.engines.onnx import OnnxEngine

    peer, shared = peers("openvino_bundle"), peers("bundle_search")
    graphs = shared.read_graphs(tiny_bundle)
    engines = (
        peer.OpenVinoEngine(graphs, 1, "f32"),
        OnnxEngine(read_bundle(tiny_bundle), threads=1),
    )
    check_equal(engines, graphs, shared.search_options, generate)


def test_buffers_feed_steps_as_the_engine_does(
    peers: Any, make_bundle: Any, tiny_bundle: Path
) -> None:
    """The buffers that every peer shares, over plain ONNX Runtime, with caches and with a state."""
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.engines.onnx import OnnxEngine

    shared = peers("bundle_search")
    for path in (tiny_bundle, make_bundle(recurrent=True)):
        graphs = shared.read_graphs(path)
        engines = (Plain(graphs, shared.StepBuffers), OnnxEngine(read_bundle(path), threads=1))
        check_equal(engines, graphs, shared.search_options, generate)


class Plain:
    """An engine that hands all buffers to ONNX Runtime anew each step."""

    def __init__(self, graphs: Any, buffers: Any) -> None:
        import onnxruntime

        self.image_size, self.vocab_size = graphs.image_size, graphs.vocab_size
        self.max_positions, self._graphs, self._make = graphs.max_positions, graphs, buffers
        self._encoder = onnxruntime.InferenceSession(graphs.encoder)
        self._decoder = onnxruntime.InferenceSession(graphs.decoder)

    def encode(self, images: np.ndarray) -> Any:
        from edgecap.runtime.engines.base import Encoded

        names = [output.name for output in self._encoder.get_outputs()]
        found = self._encoder.run(names, {"image": images})
        return Encoded.of(len(images), dict(zip(names, found, strict=True)))

    def begin(self, encoded: Any, beams: int) -> Any:
        self._buffers = self._make(self._graphs, encoded, beams)
        return self

    def step(self, tokens: Any, position: int, parents: Any, ancestry: Any) -> np.ndarray:
        self._buffers.feed(tokens, position, parents, ancestry)
        names = list(self._buffers.outputs)
        found = self._decoder.run(names, self._buffers.inputs)
        named = dict(zip(names, found, strict=True))
        self._buffers.keep(named, position)
        return np.asarray(named["logits"])


def check_equal(engines: Any, graphs: Any, search_options: Any, generate: Any) -> None:
    """Both engines say the same of pictures that differ, with one beam and with several."""
    side = graphs.image_size
    pictures = np.random.default_rng(3).integers(0, 256, (3, 1, side, side, 3), np.uint8)
    length = min(5, graphs.max_positions)
    for beams in (1, 3):
        options = search_options(graphs.decoding, beams, length)
        said = [
            [
                generate(engine, engine.encode(picture), options, graphs.special)
                .hypotheses[0][0]
                .tokens
                for picture in pictures
            ]
            for engine in engines
        ]
        assert said[0] == said[1]
        assert all(len(tokens) == length for tokens in said[0])
