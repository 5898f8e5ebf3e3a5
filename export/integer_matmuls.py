"""Linear layers in integers, without calibration: ONNX Runtime's dynamic int8 and block weights.

Dynamic: activations get their scale at every run, weights one a channel. Block weights
(MatMulNBits): 4 or 8 bits with a scale for every 32 weights; activations are rounded to int8 in the
kernel. Both read a quarter or an eighth of the bytes, which is what a decoding step costs.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecap.runtime.errors import OptionsError

if TYPE_CHECKING:
    import onnx

BLOCK = 32
INT8_COMPUTE = 4  # ONNX Runtime's accuracy_level: activations as int8 inside the kernel


def dynamic_int8(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Every product with a constant matrix as dynamically quantised int8."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.onnx"
        quantize_dynamic(
            _without_gemm(proto),
            out,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
        return onnx.load(out)


def block_weights(proto: onnx.ModelProto, bits: int, keep: Sequence[str] = ()) -> onnx.ModelProto:
    """Every product with a constant matrix as MatMulNBits, symmetric, blocks of 32.

    keep : names of nodes that stay as they are
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    if bits not in (4, 8):
        raise OptionsError(f"bits is {bits}; give 4 or 8")
    config = DefaultWeightOnlyQuantConfig(
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_COMPUTE,
        op_types_to_quantize=("MatMul",),
        bits=bits,
    )
    quantizer = MatMulNBitsQuantizer(
        _without_gemm(proto), algo_config=config, nodes_to_exclude=list(keep)
    )
    with contextlib.redirect_stdout(io.StringIO()):
        quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _without_gemm(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose Gemm nodes with constant weights are MatMul and Add, which both ways take."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    out = onnx.ModelProto()
    out.CopyFrom(proto)
    constants = {item.name: item for item in out.graph.initializer}
    nodes = []
    for node in out.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Gemm" else None
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        plain = all(attributes.get(n, 1.0) == 1.0 for n in ("alpha", "beta"))
        if weight is None or not plain or attributes.get("transA", 0):
            nodes.append(node)
            continue
        name = node.input[1]
        if attributes.get("transB", 0):
            name += ".transposed"
            if name not in constants:
                turned = np.ascontiguousarray(numpy_helper.to_array(weight).T)
                constants[name] = numpy_helper.from_array(turned, name)
                out.graph.initializer.append(constants[name])
        product = f"{node.output[0]}.product" if len(node.input) > 2 else node.output[0]
        nodes.append(
            helper.make_node("MatMul", [node.input[0], name], [product], f"{node.name}.product")
        )
        if len(node.input) > 2:
            nodes.append(
                helper.make_node(
                    "Add", [product, node.input[2]], [node.output[0]], f"{node.name}.bias"
                )
            )
    del out.graph.node[:]
    out.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [item for item in out.graph.initializer if item.name in used]
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)
    return out
