"""What tests of single files share: bundles of every kind of decoder, and the comparison with
``Captioner``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
from onnx import TensorProto, compose, helper, numpy_helper

from edgecap.runtime.bundle import Bundle, read_bundle, write_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.manifest import DecodingDefaults, Graphs, ImageSpec, TokenizerSpec

# The picture of ``tied`` is its table of logits: T * V * V numbers, of S * S * 3 pixels.
SIZE, POSITIONS, VOCAB, EOS = 16, 6, 11, 2
EXTREMES = {255: np.nan, 254: np.inf, 253: -np.inf}


class SingleFile:
    """A graph that is run picture by picture."""

    def __init__(self, model: bytes | Path) -> None:
        data = model.read_bytes() if isinstance(model, Path) else model
        self._session = open_session(data, "one.onnx", 1)
        self._names = [item.name for item in self._session.get_outputs()]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(self._names, self._session.run(None, {"image": pixels}), strict=True))


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray:
    """Noise on a colour of its own, uint8 [count, size, size, 3]."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 256, (count, 1, 1, 3))
    return np.clip(colours + rng.normal(0, 30, (count, size, size, 3)), 0, 255).astype(np.uint8)


def check_equal(captioner: Captioner, file: SingleFile, pixels: np.ndarray, **asked: Any) -> set:
    """Every output against the captioner's own; gives the sentences, as tokens."""
    options = captioner.options(**asked)
    encoded = captioner.engine.encode(pixels[None])
    caption = captioner.decode(encoded, options)[0]
    found = captioner.search(encoded, options).hypotheses[0][: options.num_return_sequences]
    out = file(pixels)
    for row, expected in enumerate(found):
        length = out["length"][row]
        assert tuple(out["tokens"][row, :length]) == expected.tokens
        assert (out["tokens"][row, length:] == captioner.manifest.tokenizer.pad).all()
        assert out["score"][row] == pytest.approx(expected.score, abs=1e-4)
        np.testing.assert_allclose(out["logprobs"][row, :length], expected.logprobs, atol=1e-4)
        assert out["caption"][row] == captioner.tokenizer.decode(expected.tokens)
    assert len(out["caption"]) == options.num_return_sequences
    assert out["confidence"] == pytest.approx(caption.confidence, abs=1e-4)
    if abs(caption.confidence - 0.5) > 1e-3:
        assert out["sure"] == caption.sure
    for name in ("features", "novelty"):
        expected = getattr(encoded, name)
        if expected is not None:
            np.testing.assert_allclose(out[name], expected[0], atol=1e-5)
    return {hypothesis.tokens for hypothesis in found}


def write(folder: Path, files: dict[str, bytes], **changes: Any) -> Bundle:
    """A bundle of ``files``, the manifest filled in from their real inputs and outputs."""
    described = {
        role: describe_graph(open_session(files[f"{role}.onnx"], role, 1), f"{role}.onnx")
        for role in ("encoder", "decoder")
    }
    manifest, _ = tiny_models.parts(False, graphs=Graphs(**described), **changes)
    write_bundle(folder / "small.edgecap", manifest, files)
    return read_bundle(folder / "small.edgecap")


def tied(folder: Path) -> Bundle:
    """A decoder without state whose logits are small whole numbers read from the picture, by step
    and last token: nearly everything ties, and NaN and infinities occur."""
    lut = np.arange(256, dtype=np.float32) % 4
    for pixel, value in EXTREMES.items():
        lut[pixel] = value
    count = POSITIONS * VOCAB * VOCAB
    whole = {"flat": [1, -1], "from": [0], "to": [count], "axis": [1], "columns": [1]}
    whole |= {"table_shape": [-1, POSITIONS, VOCAB, VOCAB]}
    constants = [numpy_helper.from_array(lut, "lut")]
    constants += [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in whole.items()]
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.INT64),
        helper.make_node("Gather", ["lut", "levels"], ["values"]),
        helper.make_node("Flatten", ["values"], ["row"]),
        helper.make_node("Slice", ["row", "from", "to", "axis"], ["cut"]),
        helper.make_node("Reshape", ["cut", "table_shape"], ["memory.table"]),
    ]
    encoder = _model(
        nodes,
        [("image", TensorProto.UINT8, ["B", SIZE, SIZE, 3])],
        [("memory.table", TensorProto.FLOAT, ["B", POSITIONS, VOCAB, VOCAB])],
        [c for c in constants if c.name not in ("flat", "columns")],
    )
    nodes = [
        helper.make_node("Gather", ["memory.table", "position"], ["step"], axis=1),
        helper.make_node("Shape", ["step"], ["batch"], end=1),
        helper.make_node("Concat", ["batch", "minus"], ["side"], axis=0),
        helper.make_node("Reshape", ["token", "side"], ["rows"]),
        helper.make_node("Unsqueeze", ["rows", "two"], ["places"]),
        helper.make_node("GatherND", ["step", "places"], ["found"], batch_dims=1),
        helper.make_node("Reshape", ["found", "out"], ["logits"]),
    ]
    numbers = {"minus": [-1], "two": [2], "out": [-1, VOCAB]}
    decoder = _model(
        nodes,
        [
            ("token", TensorProto.INT64, ["R"]),
            ("position", TensorProto.INT64, []),
            ("memory.table", TensorProto.FLOAT, ["B", POSITIONS, VOCAB, VOCAB]),
        ],
        [("logits", TensorProto.FLOAT, ["R", VOCAB])],
        [numpy_helper.from_array(np.array(v, np.int64), k) for k, v in numbers.items()],
    )
    words = tiny_models.WORDS
    try:
        tiny_models.WORDS = words[:VOCAB]
        tokenizer = tiny_models.tokenizer_json()
    finally:
        tiny_models.WORDS = words
    return write(
        folder,
        {"encoder.onnx": encoder, "decoder.onnx": decoder, "tokenizer.json": tokenizer},
        family="table",
        image=ImageSpec(size=SIZE),
        tokenizer=TokenizerSpec("tokenizer.json", 1, EOS, 0, 3, VOCAB),
        decoding=DecodingDefaults(max_new_tokens=POSITIONS),
        max_positions=POSITIONS,
        confidence=None,
    )


def both(folder: Path) -> Bundle:
    """The tiny attention decoder and the tiny recurrent one side by side, their logits summed:
    caches, ancestry, recurrent state and parents at once."""
    attention = compose.add_prefix(
        onnx.load_from_string(tiny_models.attention_decoder()),
        "a/",
        rename_inputs=False,
        rename_outputs=False,
    )
    recurrent = compose.add_prefix(
        onnx.load_from_string(tiny_models.recurrent_decoder()),
        "r/",
        rename_inputs=False,
        rename_outputs=False,
    )
    for model, name in ((attention, "a/logits"), (recurrent, "r/logits")):
        for node in model.graph.node:
            node.output[:] = [name if output == "logits" else output for output in node.output]
    inputs = {item.name: item for model in (attention, recurrent) for item in model.graph.input}
    outputs = {item.name: item for model in (attention, recurrent) for item in model.graph.output}
    graph = helper.make_graph(
        [
            *attention.graph.node,
            *recurrent.graph.node,
            helper.make_node("Add", ["a/logits", "r/logits"], ["logits"]),
        ],
        "both",
        list(inputs.values()),
        list(outputs.values()),
        [*attention.graph.initializer, *recurrent.graph.initializer],
    )
    decoder = helper.make_model(graph, opset_imports=list(attention.opset_import), ir_version=10)
    files = tiny_models.parts(True)[1] | {"decoder.onnx": decoder.SerializeToString()}
    return write(folder, files, family="both")


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data
