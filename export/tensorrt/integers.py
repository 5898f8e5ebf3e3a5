"""Products that ONNX Runtime computes in integers in ways that TensorRT lacks, as float products.

Dynamic int8 (``DynamicQuantizeLinear`` and ``MatMulInteger``) and weights in blocks of 4 or 8 bits
(``MatMulNBits``): the weights keep their rounded values, activations are no longer rounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.export.tensorrt.graph import Graph, attribute
from edgecap.runtime.errors import EngineError

if TYPE_CHECKING:
    import onnx


def widen_products(graph: Graph) -> None:
    """Replace both kinds by MatMul with a float constant, in place."""
    from onnx import helper

    makers = {name: node for node in graph.nodes for name in node.output}
    consumers = graph.consumers()
    nodes = []
    replaced: dict[int, onnx.NodeProto] = {}  # the last node of a pattern -> what stands for it
    for node in graph.nodes:
        if node.op_type == "MatMulNBits":
            weight = graph.add_constant(f"{node.input[1]}.wide", _blocks(graph, node))
            product = helper.make_node("MatMul", [node.input[0], weight], list(node.output))
            product.name = node.name
            replaced[id(node)] = product
        elif node.op_type == "MatMulInteger":
            source = makers.get(node.input[0])
            if source is None or source.op_type != "DynamicQuantizeLinear":
                continue  # another pattern: left as it is, for the lint to name
            last, scales = _scaling(node, consumers, makers)
            scale = next((n for n in scales.input if graph.is_constant(n)), None)
            if scale is None or not graph.is_constant(node.input[1]):
                continue
            values = graph.constant(node.input[1]).astype(np.int32)
            if len(node.input) > 3 and node.input[3]:
                values = values - graph.constant(node.input[3]).astype(np.int32)
            wide = (values * graph.constant(scale)).astype(np.float32)
            weight = graph.add_constant(f"{node.input[1]}.wide", wide)
            product = helper.make_node("MatMul", [source.input[0], weight], [last.output[0]])
            product.name = node.name
            replaced[id(last)] = product
    for node in graph.nodes:
        nodes.append(replaced.get(id(node), node))
    graph.nodes = nodes


def _scaling(
    node: onnx.NodeProto,
    consumers: dict[str, list[onnx.NodeProto]],
    makers: dict[str, onnx.NodeProto],
) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """(the last Mul, the Mul of both scales) after an integer product."""
    cast = consumers[node.output[0]]
    last = consumers[cast[0].output[0]] if len(cast) == 1 and cast[0].op_type == "Cast" else []
    if len(last) == 1 and last[0].op_type == "Mul":
        others = [makers.get(name) for name in last[0].input if name != cast[0].output[0]]
        if len(others) == 1 and others[0] is not None and others[0].op_type == "Mul":
            return last[0], others[0]
    raise EngineError(
        f"MatMulInteger {node.name!r} is not scaled as ONNX Runtime's quantiser does it; "
        "export the model as fp16 or int8"
    )


def _blocks(graph: Graph, node: onnx.NodeProto) -> npt.NDArray[np.float32]:
    """The weight of a MatMulNBits, float32 [K, N]."""
    rows, columns = attribute(node, "K"), attribute(node, "N")
    bits, block = attribute(node, "bits") or 4, attribute(node, "block_size")
    packed = graph.constant(node.input[1]).reshape(columns, -1)
    if bits not in (4, 8) or any(node.input[4:]):
        raise EngineError(f"MatMulNBits {node.name!r} has {bits} bits or a bias; export it as fp16")
    whole = _unpack(packed, bits).astype(np.float32).reshape(columns, -1, block)
    zero: Any = 1 << (bits - 1)
    if len(node.input) > 3 and node.input[3]:
        points = graph.constant(node.input[3])
        if points.dtype == np.uint8:
            points = _unpack(points.reshape(columns, -1), bits)[:, : whole.shape[1]]
        zero = points.reshape(columns, -1, 1).astype(np.float32)
    scale = graph.constant(node.input[2]).reshape(columns, -1, 1)
    wide = ((whole - zero) * scale).reshape(columns, -1)[:, :rows]
    return np.ascontiguousarray(wide.T, np.float32)


def _unpack(packed: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Bytes [N, bytes] -> values [N, values]; of two in a byte the low half comes first."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)
