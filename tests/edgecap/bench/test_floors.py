"""Operations and bytes of graphs against what torch counts, and floors that are arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecap.bench.floors import (
    Work,
    encoder_work,
    graph_work,
    native_work,
    own_encoder,
    own_step,
)
from edgecap.bench.rates import Rates, node_cost, product_rate, read_rate, triad_rate
from edgecap.bench.step_cost import StepCost, bundle_cost
from edgecap.models import bundled
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.errors import EngineError

onnx = pytest.importorskip("onnx")
graph_cost = pytest.importorskip("edgecap.bench.graph_cost")

FLOAT = 1
RATES = Rates(1, 1e9, 1e9, 1 << 20, 2e9, 8e9, 1.0)


def serialised(nodes: list[Any], inputs: dict[str, Any], output: str, **weights: Any) -> bytes:
    helper = onnx.helper
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [onnx.ValueInfoProto(name=output)],
        [onnx.numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    data: bytes = helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    return data


def test_operations_are_those_that_torch_counts() -> None:
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    kernel = np.ones((6, 3, 3, 3), np.float32)
    depthwise = np.ones((6, 1, 3, 3), np.float32)
    matrix = np.ones((8, 5), np.float32)
    node = onnx.helper.make_node
    data = serialised(
        [
            node("Conv", ["x", "kernel"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", ["a"], ["b"]),
            node("Conv", ["b", "depthwise"], ["c"], group=6, pads=[1, 1, 1, 1]),
            node("MatMul", ["c", "matrix"], ["d"]),
            node("Transpose", ["d"], ["e"], perm=[0, 1, 3, 2]),
            node("MatMul", ["d", "e"], ["y"]),
        ],
        {"x": (FLOAT, ["B", 3, 16, 16])},
        "y",
        kernel=kernel,
        depthwise=depthwise,
        matrix=matrix,
    )
    cost = graph_cost.count_graph(data, {"B": 2})
    with FlopCounterMode(display=False) as counter:
        x = torch.zeros(2, 3, 16, 16)
        a = torch.conv2d(x, torch.tensor(kernel), stride=2, padding=1).relu()
        c = torch.conv2d(a, torch.tensor(depthwise), padding=1, groups=6)
        d = c @ torch.tensor(matrix)
        d @ d.transpose(2, 3)
    assert cost.operations(False) == counter.get_total_flops()
    assert cost.operations(True) == 0
    assert cost.weights == kernel.size + depthwise.size + matrix.size
    assert cost.interface == 4 * (2 * 3 * 16 * 16 + 2 * 6 * 8 * 8)
    assert cost.nodes == 5  # all but the transpose
    assert cost.bytes_read() == 4 * cost.weights + cost.interface


def test_a_tied_matrix_is_read_once_and_stored_bytes_are_those_of_the_file() -> None:
    words = np.ones((5, 4), np.int8)
    node = onnx.helper.make_node
    data = serialised(
        [
            node("Cast", ["words"], ["wide"], to=FLOAT),
            node("Mul", ["wide", "scale"], ["table"]),
            node("MatMul", ["x", "table"], ["a"]),
            node("Transpose", ["table"], ["turned"], perm=[1, 0]),
            node("MatMul", ["a", "turned"], ["y"]),
        ],
        {"x": (FLOAT, ["R", 5])},
        "y",
        words=words,
        scale=np.ones((5, 1), np.float32),
    )
    cost = graph_cost.count_graph(data, {"R": 3})
    assert [product.weights for product in cost.products] == [20, 0]
    assert [product.stored for product in cost.products] == [20, 0]
    assert cost.operations(False) == 2 * 2 * 3 * 20
    assert cost.bytes_read(wide=1) == 20 + cost.interface


def test_products_between_quantisers_are_in_whole_numbers() -> None:
    node = onnx.helper.make_node
    data = serialised(
        [
            node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            node("DequantizeLinear", ["q", "s", "z"], ["dx"]),
            node("DequantizeLinear", ["w", "s", "zw"], ["dw"]),
            node("MatMul", ["dx", "dw"], ["a"]),
            node("MatMul", ["a", "dw"], ["y"]),
        ],
        {"x": (FLOAT, ["R", 4])},
        "y",
        s=np.float32(0.1),
        z=np.uint8(128),
        zw=np.int8(0),
        w=np.ones((4, 4), np.int8),
    )
    cost = graph_cost.count_graph(data, {"R": 2})
    assert cost.operations(True) == cost.operations(False) == 2 * 2 * 16
    assert cost.products[0].integer
    assert not cost.products[1].integer


def test_blocks_of_four_bits_and_recurrent_layers_are_counted() -> None:
    node = onnx.helper.make_node
    wide = np.zeros((1, 8, 3), np.float32)
    data = serialised(
        [node("LSTM", ["x", "w", "r"], ["", "h"], hidden_size=2)],
        {"x": (FLOAT, [7, "B", 3])},
        "h",
        w=wide,
        r=np.zeros((1, 8, 2), np.float32),
    )
    cost = graph_cost.count_graph(data, {"B": 5})
    assert cost.weights == 8 * 3 + 8 * 2
    assert cost.operations(False) == 2 * 7 * 5 * cost.weights


def test_what_is_not_counted_is_said() -> None:
    node = onnx.helper.make_node
    data = serialised(
        [node("Einsum", ["x", "x"], ["y"], equation="ij,ij->i")], {"x": (FLOAT, ["B", 3])}, "y"
    )
    with pytest.raises(EngineError, match="Einsum"):
        graph_cost.count_graph(data, {"B": 1})
    with pytest.raises(EngineError, match="dimension 'B'"):
        graph_cost.count_graph(data, {})


def test_a_floor_is_the_larger_of_memory_and_arithmetic() -> None:
    work = Work("made up", read=2e6, integer=8e6, floating=2e6, launches=3)
    slow = work.floor(RATES, bandwidth=1e9)
    assert (slow.memory_ms, slow.arithmetic_ms) == pytest.approx((2.0, 2.0))
    assert slow.ms == pytest.approx(2.0)
    quick = work.floor(RATES, bandwidth=4e9)
    assert (quick.ms, quick.bound) == (pytest.approx(2.0), "arithmetic")
    assert quick.to_dict(8.0)["reached"] == 0.25
    assert "reached" not in quick.to_dict()


def test_own_steps_read_their_weights_once_whatever_the_beams() -> None:
    cost = StepCost("made up", weights=1000, rows=10, past=8, memory=20, launches=3)
    one = native_work(cost, precision="int8", beams=1, tokens=1)
    four = native_work(cost, precision="int8", beams=4, tokens=1)
    assert one.read == 1000 + 10 + 4 * 20
    assert four.read == one.read + 3 * 10
    assert four.integer == 4 * one.integer == 8000
    assert native_work(cost, precision="fp32", tokens=1).integer == 0
    assert native_work(cost, precision="bf16", beams=1, tokens=1).read == 2020 + 80


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
def test_both_ways_to_count_the_default_decoder_agree() -> None:
    bundle = read_bundle(bundled()["default"])
    data = bundle.files[bundle.manifest.graphs.decoder.file]
    positions = bundle.manifest.max_positions
    sizes = graph_cost.decoder_sizes(data, batch=1, beams=4, positions=positions)
    counted = graph_cost.count_graph(data, sizes)
    cost = bundle_cost(bundle)  # has biases and norms besides
    assert 0 <= cost.weights - counted.weights < 0.01 * cost.weights
    ours, theirs = own_step(bundle, beams=4), graph_work("step", counted)
    assert ours.integer + ours.floating == pytest.approx(theirs.floating, rel=0.05)


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
def test_both_ways_to_count_the_default_encoder_agree() -> None:
    bundle = read_bundle(bundled()["default"])
    ours, theirs = own_encoder(bundle), encoder_work(bundle)
    assert ours.name == "encoder, own kernels in int8"
    total = theirs.integer + theirs.floating
    assert ours.integer + ours.floating == pytest.approx(total, rel=0.01)
    assert ours.integer > theirs.integer  # what the graph has in floats, too
    assert ours.read < theirs.read


def test_rates_are_measured() -> None:
    assert triad_rate(1, count=1 << 16) > 0
    assert read_rate(1 << 20, 2, total=1 << 22) > 0
    assert product_rate(1, integer=True, side=64) > 0
    assert product_rate(1, integer=False, side=64) > 0
    assert node_cost(1) > 0
    assert RATES.to_dict()["read_bytes"] == 1 << 20
