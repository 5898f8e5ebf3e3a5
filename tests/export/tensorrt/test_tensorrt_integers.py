"""Integer products of ONNX Runtime's quantisers as float products with the same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorrt_emulation as emulation

onnx = pytest.importorskip("onnx")
quantization = pytest.importorskip("onnxruntime.quantization")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgecap.export.tensorrt.operators import lint  # noqa: E402
from edgecap.export.tensorrt.prepare import prepare_graph  # noqa: E402
from edgecap.export.tensorrt.respell import respell  # noqa: E402

ROWS, COLUMNS = 80, 24  # 80 = two and a half blocks of 32


@pytest.fixture
def product() -> onnx.ModelProto:
    weight = np.random.default_rng(0).normal(0, 1, (ROWS, COLUMNS)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", COLUMNS])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def run(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    found: np.ndarray = emulation.session(proto.SerializeToString()).run(None, {"x": x})[0]
    return found


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_in_blocks(product: onnx.ModelProto, bits: int, symmetric: bool) -> None:
    nbits = pytest.importorskip("onnxruntime.quantization.matmul_nbits_quantizer")
    config = nbits.DefaultWeightOnlyQuantConfig(block_size=32, is_symmetric=symmetric, bits=bits)
    quantizer = nbits.MatMulNBitsQuantizer(product, bits=bits, algo_config=config)
    quantizer.process()
    packed = quantizer.model.model
    assert [n.op_type for n in packed.graph.node] == ["MatMulNBits"]
    made = respell(packed, quantised=False)
    assert [n.op_type for n in made.graph.node] == ["MatMul"]
    assert len(lint(packed)) == 1
    assert lint(made) == []
    x = np.random.default_rng(1).normal(0, 1, (5, ROWS)).astype(np.float32)
    # ONNX Runtime's kernel computes in float32 unless it is told otherwise.
    np.testing.assert_allclose(run(made, x), run(packed, x), atol=2e-3)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("signed", [True, False])
def test_dynamic_int8(
    product: onnx.ModelProto, tmp_path: Path, per_channel: bool, signed: bool
) -> None:
    kind = quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8
    onnx.save(product, tmp_path / "a.onnx")
    quantization.quantize_dynamic(
        tmp_path / "a.onnx", tmp_path / "b.onnx", per_channel=per_channel, weight_type=kind
    )
    dynamic = onnx.load(tmp_path / "b.onnx")
    assert "MatMulInteger" in [n.op_type for n in dynamic.graph.node]
    made = prepare_graph(dynamic, "fp32")
    assert [n.op_type for n in made.graph.node] == ["MatMul"]
    assert lint(made) == []
    x = np.random.default_rng(1).normal(0, 1, (5, ROWS)).astype(np.float32)
    # Activations were rounded to 255 steps of their range, and are no longer.
    step = (x.max() - x.min()) / 255
    weight = numpy_helper.to_array(made.graph.initializer[0])
    bound = step / 2 * np.abs(weight).sum(0) + 1e-4
    assert (np.abs(run(made, x) - run(dynamic, x)) <= bound).all()
