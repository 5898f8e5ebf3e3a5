"""Graphs for TensorRT compute what the bundle's graphs compute; ONNX Runtime is the judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorrt_emulation as emulation
import tiny_models as tiny
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecap.export.tensorrt.half import fits, halve, to_half  # noqa: E402
from edgecap.export.tensorrt.operators import lint  # noqa: E402
from edgecap.export.tensorrt.prepare import PRECISIONS, prepare, prepare_graph  # noqa: E402
from edgecap.export.tensorrt.respell import respell  # noqa: E402
from edgecap.models import resolve  # noqa: E402
from edgecap.runtime.bundle import Bundle, read_bundle  # noqa: E402
from edgecap.runtime.errors import EngineError  # noqa: E402
from edgecap.runtime.image import load_image, resize_image  # noqa: E402

FLOAT, INT8, UINT8 = TensorProto.FLOAT, TensorProto.INT8, TensorProto.UINT8
# 1 - cosine between an encoder's outputs and the bundle's own, which are quantised themselves.
CLOSE = 0.004


def run(proto: Any, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs are cast to what the graph takes."""
    data = proto if isinstance(proto, bytes) else proto.SerializeToString()
    session = emulation.session(data)
    given = {
        node.name: feed[node.name].astype(
            np.float16 if node.type == "tensor(float16)" else feed[node.name].dtype
        )
        for node in session.get_inputs()
    }
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


def decoder_feed(bundle: Bundle, memory: dict[str, np.ndarray], beams: int) -> dict[str, Any]:
    """Inputs of a step in the middle of a caption."""
    rng = np.random.default_rng(0)
    batch = len(next(iter(memory.values())))
    rows, slots = batch * beams, beams * bundle.manifest.max_positions
    feed: dict[str, Any] = {
        "token": rng.integers(4, bundle.manifest.tokenizer.vocab_size, rows),
        "position": np.array(3),
        "parent": np.arange(rows)[::-1].copy(),
        "ancestry": rng.random((rows, slots)) < 0.15,
    }
    for spec in bundle.manifest.graphs.decoder.inputs:
        sides = tuple(s for s in spec.shape if isinstance(s, int))
        if spec.name.startswith("memory."):
            feed[spec.name] = memory[spec.name]
        elif spec.name.startswith("carry."):
            feed[spec.name] = rng.normal(0, 0.5, (rows, *sides)).astype(np.float32)
        elif spec.name.startswith("cache."):
            feed[spec.name] = rng.normal(0, 1, (batch, slots, *sides)).astype(np.float32)
    return feed


@pytest.fixture(scope="module")
def default() -> Bundle:
    return read_bundle(resolve("default"))


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    data = pytest.importorskip("skimage.data")
    found = [getattr(data, name)() for name in ("cat", "coffee", "astronaut", "rocket")]
    return np.stack([resize_image(load_image(picture, "RGB"), 224) for picture in found])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_default_model(default: Bundle, photographs: np.ndarray, precision: str) -> None:
    """int8: symmetric, but one rounding fewer at each Relu, so it stays as near as it was."""
    made = prepare(default, precision)
    feed = {"image": photographs}
    expected = run(default.files["encoder.onnx"], feed)
    exact = run(prepare_graph(load(default, "encoder.onnx"), "fp32"), feed)
    found = run(made["encoder"], feed)
    for name, value in expected.items():
        assert 1 - cosine(found[name], value) < CLOSE, name
        # Not farther from float32 than ONNX Runtime's own int8 is; novelty is four numbers here.
        nearer = cosine(found[name], exact[name]) > cosine(value, exact[name]) - 1e-4
        assert nearer or name == "novelty", name
    steps = decoder_feed(default, {n: v for n, v in expected.items() if "memory" in n}, 4)
    want, got = run(default.files["decoder.onnx"], steps), run(made["decoder"], steps)
    assert got["logits"].dtype == np.float32
    np.testing.assert_allclose(got["logits"], want["logits"], atol=0.02)
    # The same choice, or one that is as good within that.
    chosen = np.take_along_axis(got["logits"], want["logits"].argmax(1)[:, None], 1)[:, 0]
    assert (got["logits"].max(1) - chosen < 0.04).all()
    for name in ("append.key.0", "append.value.1"):
        assert cosine(got[name], want[name]) > 0.9999


def load(bundle: Bundle, file: str) -> Any:
    return onnx.load_from_string(bundle.files[file])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_family(families: dict[str, Any], precision: str) -> None:
    for family, small in families.items():
        bundle = small.quantised
        made = prepare(bundle, precision)
        expected = run(bundle.files["encoder.onnx"], {"image": small.pictures})
        found = run(made["encoder"], {"image": small.pictures})
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert cosine(found[name], value) > 0.99, f"{family} {name}"
        memory = {n: v for n, v in expected.items() if n.startswith("memory.")} or expected
        steps = decoder_feed(bundle, memory, 3)
        want, got = run(bundle.files["decoder.onnx"], steps), run(made["decoder"], steps)
        np.testing.assert_allclose(got["logits"], want["logits"], atol=0.05, err_msg=family)
        for role, proto in made.items():
            assert [str(f) for f in lint(proto)] == [], f"{family} {role}"


def test_lint_of_the_default_model(default: Bundle) -> None:
    for precision in PRECISIONS:
        for proto in prepare(default, precision).values():
            assert lint(proto) == []
    findings = [str(f) for f in lint(load(default, "encoder.onnx"))]
    assert any("it quantises to UINT8" in text for text in findings)
    assert any("is UINT8; it takes" in text for text in findings)
    assert any("DequantizeLinear" in text and "is INT32" in text for text in findings)


def model(
    nodes: list[Any],
    inputs: list[tuple[Any, ...]],
    outputs: list[tuple[Any, ...]],
    constants: dict[str, np.ndarray],
    opset: int = 18,
) -> Any:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    for number, node in enumerate(made.graph.node):
        node.name = node.name or f"n{number}"
    return made


@settings(deadline=None, max_examples=40)
@given(
    st.floats(1e-3, 10),
    st.integers(0, 255),
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=20),
)
def test_any_range_becomes_a_symmetric_one_that_holds_it(
    scale: float, zero: int, values: list[float]
) -> None:
    """Every value of the old range survives within half a step of the new one."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("Mul", ["d", "one"], ["y"]),
    ]
    constants = {
        "s": np.array(scale, np.float32),
        "z": np.array(zero, np.uint8),
        "one": np.array(1, np.float32),
    }
    proto = model(nodes, [("x", FLOAT, ["N"])], [("y", FLOAT, ["N"])], constants)
    made = respell(proto, quantised=True)
    kinds = {i.data_type for i in made.graph.initializer}
    assert UINT8 not in kinds
    assert INT8 in kinds
    x = np.array(values, np.float32)
    inside = run(proto, {"x": x})["y"]  # rounded and clipped to the old range
    step = max(zero, 255 - zero) * scale / 127
    found = run(made, {"x": inside})["y"]
    assert np.abs(found - inside).max() <= step / 2 * (1 + 1e-5) + 1e-6


def test_a_bias_in_integers_is_exact_in_float() -> None:
    rng = np.random.default_rng(0)
    bias = rng.integers(-(2**30), 2**30, 5, dtype=np.int32)
    scale = rng.uniform(1e-9, 1e-7, 5).astype(np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["b", "s"], ["d"], axis=0),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    proto = model(nodes, [("x", FLOAT, [2, 5])], [("y", FLOAT, [2, 5])], {"b": bias, "s": scale})
    made = respell(proto, quantised=True)
    assert [n.op_type for n in made.graph.node] == ["Add"]
    expected = bias.astype(np.float64) * scale
    np.testing.assert_allclose(run(made, {"x": np.zeros((2, 5), np.float32)})["y"][0], expected)


def test_bytes_are_cast_before_they_are_moved() -> None:
    nodes = [
        helper.make_node("Shape", ["image"], ["sides"]),
        helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["planes"], ["wide"], to=FLOAT),
        helper.make_node("Cast", ["sides"], ["sides_wide"], to=FLOAT),
        helper.make_node("Add", ["wide", "sides_wide"], ["y"]),
    ]
    proto = model(nodes, [("image", UINT8, [1, 4, 4, 4])], [("y", FLOAT, [1, 4, 4, 4])], {})
    made = respell(proto, quantised=True)
    assert [n.op_type for n in made.graph.node if "image" in n.input] == ["Cast"]
    image = np.arange(64, dtype=np.uint8).reshape(1, 4, 4, 4)
    np.testing.assert_array_equal(
        run(made, {"image": image})["y"], run(proto, {"image": image})["y"]
    )
    assert lint(made) == []
    assert [f.operator for f in lint(proto)] == ["Shape", "Transpose", "Cast"]


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=9))
def test_constants_in_half_precision_are_never_made_infinite(values: list[float]) -> None:
    array = np.array(values, np.float32)
    made = halve(array)
    assert (np.isfinite(made) == np.isfinite(array)).all()
    if fits(array):
        assert ((made == 0) == (np.abs(array) < 2.0**-25) | (array == 0)).all()


def test_what_half_precision_cannot_hold_stays_wide() -> None:
    """A norm is kept from 0 by 1e-12, which float16 rounds to 0."""
    nodes = [
        helper.make_node("ReduceL2", ["x", "axis"], ["norm"], keepdims=1),
        helper.make_node("Clip", ["norm", "least"], ["safe"]),
        helper.make_node("Div", ["x", "safe"], ["features"]),
    ]
    constants = {"axis": np.array([1]), "least": np.array(1e-12, np.float32)}
    proto = model(nodes, [("x", FLOAT, [2, 4])], [("features", FLOAT, [2, 4])], constants)
    made = to_half(proto)
    x = np.array([[3, 4, 0, 0], [0, 0, 0, 0]], np.float32)
    clip = next(n for n in made.graph.node if n.op_type == "Clip")
    assert clip.input[1] == "least"
    found = run(made, {"x": x})["features"]
    np.testing.assert_allclose(found[0], [0.6, 0.8, 0, 0], atol=1e-3)


def test_a_body_cannot_be_cast() -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", FLOAT, [1])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body, name="choice")
    proto = model([node], [("c", TensorProto.BOOL, []), ("x", FLOAT, [1])], [("y", FLOAT, [1])], {})
    with pytest.raises(EngineError, match=r"If 'choice' has a body.*--precision fp32"):
        to_half(proto)


@pytest.mark.parametrize(
    ("node", "kind", "constants", "message"),
    [
        (("Det", ["x"]), FLOAT, {}, "has no operator Det"),
        (("RotaryEmbedding", ["x"]), FLOAT, {}, "has no operator RotaryEmbedding"),
        (("Relu", ["x"]), TensorProto.DOUBLE, {}, "is FP64"),
        (("Unsqueeze", ["x", "axes"]), FLOAT, {}, "'axes' must be a constant"),
        (
            ("QuantizeLinear", ["x", "s", "z"]),
            FLOAT,
            {"s": np.array(1, np.float32), "z": np.array(3, np.int8)},
            "zero point is not 0",
        ),
        (("AveragePool", ["x"]), FLOAT, {}, "has 2 sides; 4, 5 are taken"),
    ],
)
def test_findings(
    node: tuple[str, list[str]], kind: int, constants: dict[str, np.ndarray], message: str
) -> None:
    operator, inputs = node
    made = helper.make_node(operator, inputs, ["y"], name="the_node")
    given = [("x", kind, [2, 3])] + ([("axes", TensorProto.INT64, [1])] * ("axes" in inputs))
    proto = model([made], given, [("y", kind, None)], constants)
    texts = [str(f) for f in lint(proto)]
    assert any(message in text for text in texts), texts
    assert any("'the_node'" in text for text in texts)


def test_a_newer_opset_is_told() -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"])],
        [("x", FLOAT, [1])],
        [("y", FLOAT, [1])],
        {},
        opset=22,
    )
    assert [str(f) for f in lint(proto)] == ["opset 22; TensorRT 10.3 reads 9-20"]


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_of_other_makers(recurrent: bool, precision: str) -> None:
    """Hand-written graphs of the contract, which no exporter of ours has touched."""
    manifest, files = tiny.parts(recurrent)
    for name in ("encoder.onnx", "decoder.onnx"):
        made = prepare_graph(onnx.load_from_string(files[name]), precision)
        assert lint(made) == []
    assert manifest.family
