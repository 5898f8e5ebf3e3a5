"""Decoders whose products are dynamically quantised integers: own CPU steps take their weights."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.engines.choose import choose_engine
from edgecap.runtime.engines.cuda_onnx import Graph, Unlike
from edgecap.runtime.engines.native_step import NativeStepEngine, kernels
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.onnx_weights import load_model, to_array

sys.path.insert(0, str(Path(__file__).parents[1] / "native"))
for package in ("torch", "onnxscript", "transformers"):
    pytest.importorskip(package)
small = pytest.importorskip("small_decoders")
FAMILIES = ("vit-gpt2", "show-attend-tell")
Made = Callable[[str], Bundle]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("dynamic")
    return functools.cache(lambda family: small.make_dynamic(folder, family))


def captions(engine: Any, bundle: Bundle, encoded: Any) -> Decoded:
    options = DecodingOptions(beams=4, max_new_tokens=small.POSITIONS)
    return generate(engine, encoded, options, small.SPECIAL)


def widened(bundle: Bundle, path: Path) -> Bundle:
    """By the export's own way for TensorRT: the same weights in float products."""
    import onnx

    from edgecap.export.tensorrt.graph import Graph as Editable
    from edgecap.export.tensorrt.integers import widen_products

    graph = Editable(onnx.load_from_string(bundle.files["decoder.onnx"]))
    widen_products(graph)
    encoder = onnx.load_from_string(bundle.files["encoder.onnx"])
    return small.bundle_of(path, bundle.manifest.family, encoder, graph.finish())


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_in_integers(family: str, made: Made) -> None:
    bundle = made(family)
    model = load_model(bundle.files["decoder.onnx"], "decoder.onnx")
    assert "MatMulInteger" in {node.op_type for node in model.graph.node}
    theirs = OnnxEngine(bundle, threads=1)
    ours, choice = choose_engine(bundle, "native", threads=2)
    assert isinstance(ours, NativeStepEngine)
    assert (choice.engine, ours.precision) == ("native", "int8")
    encoded = theirs.encode(small.pictures(bundle, 12))
    wanted, found = (captions(engine, bundle, encoded) for engine in (theirs, ours))
    pairs = list(zip(wanted.hypotheses, found.hypotheses, strict=True))
    gaps = [abs(a[0].score - b[0].score) for a, b in pairs if a[0].tokens == b[0].tokens]
    # Both round activations, each in its own way, and random weights are large: a few fork.
    assert len(gaps) >= 9
    assert max(gaps) < 0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_integers(family: str, made: Made, tmp_path: Path) -> None:
    """Without rounded activations they say what ONNX Runtime says of the widened graph."""
    bundle = made(family)
    wide = widened(bundle, tmp_path / "wide.edgecap")
    theirs = OnnxEngine(wide, threads=1)
    encoded = theirs.encode(small.pictures(bundle, 6))
    wanted = captions(theirs, wide, encoded).hypotheses
    ours = NativeStepEngine(bundle, threads=1, precision="fp32")
    for right, said in zip(wanted, captions(ours, bundle, encoded).hypotheses, strict=True):
        assert [h.tokens for h in said] == [h.tokens for h in right]
        for a, b in zip(right, said, strict=True):
            assert b.logprobs == pytest.approx(a.logprobs, abs=1e-3)


def test_packing_gives_the_same_integers(made: Made) -> None:
    bundle = made("vit-gpt2")
    model = load_model(bundle.files["decoder.onnx"], "decoder.onnx")
    stored = {item.name: to_array(item) for item in model.graph.initializer}
    integers = [stored[n.input[1]] for n in model.graph.node if n.op_type == "MatMulInteger"]
    graph = Graph(model)
    names = [n.input[1] for n in graph.nodes if n.op_type == "MatMul" and " * " in n.input[1]]
    assert len(names) == len(integers) > 8
    native = importlib.import_module("edgecap._native")
    for name, expected in zip(names, integers, strict=True):
        weight = np.ascontiguousarray(graph.floats(name, 2).T)
        x = np.eye(weight.shape[1], dtype=np.float32)  # a row each: 127 in the kernels
        found = np.zeros((len(x), len(weight)), np.int32)
        native.whole_product(weight, x, found, kernels()[0])
        np.testing.assert_array_equal(found, 127 * expected.astype(np.int32))


def test_large_decoders_in_int8_are_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecap.export import quantize

    encoder, decoder = small.FAMILIES["show-and-tell"](tmp_path)
    monkeypatch.setattr(quantize, "LARGE_DECODER", 0)
    decoder, text = quantize.quantize_decoder(decoder)
    assert text == quantize.DYNAMIC
    bundle = small.bundle_of(tmp_path / "large.edgecap", "show-and-tell", encoder, decoder)
    assert NativeStepEngine(bundle, threads=1).precision == "int8"


@pytest.mark.parametrize("signed", [True, False], ids=["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [True, False], ids=["columns", "tensor"])
def test_other_settings_of_the_quantiser(signed: bool, per_channel: bool, tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weight = np.random.default_rng(0).normal(0.3, 1, (24, 10)).astype(np.float32)
    bias = np.arange(10, dtype=np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
            helper.make_node("Add", ["p", "b"], ["y"], "bias"),
        ],
        "one",
        [value("x", 1, ["n", 24])],
        [value("y", 1, ["n", 10])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(made, tmp_path / "a.onnx")
    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    out = tmp_path / "b.onnx"
    quantize_dynamic(tmp_path / "a.onnx", out, per_channel=per_channel, weight_type=kind)
    model = load_model(out.read_bytes(), "b.onnx")
    linear = Graph(model).linear("y")
    assert linear.source == "x"
    np.testing.assert_array_equal(linear.what.bias, bias)
    step = np.abs(weight).max() * (1 / 127 if signed else 2 / 255)
    assert np.abs(linear.what.weight - weight.T).max() <= 0.51 * step

    product = next(n for n in model.graph.node if n.op_type == "MatMulInteger")
    product.input[2] = ""  # another zero point than that of its input
    with pytest.raises(Unlike, match="products are"):
        Graph(model)
