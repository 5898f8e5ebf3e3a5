"""Operations and bytes of an ONNX graph, counted node by node in the shapes that a run gives.

Counted are products: convolutions, matrix products, recurrent layers. All else is a few operations
a number, which a good engine does on the way. An operation is a multiplication or an addition, so a
multiply-add is two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecap.runtime.errors import EngineError

if TYPE_CHECKING:
    import onnx

INTEGER = ("ConvInteger", "MatMulInteger", "QLinearConv", "QLinearMatMul", "DynamicQuantizeMatMul")
CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
MATRICES = ("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulNBits")
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Between a stored weight and the product that reads it.
PASSES = ("Cast", "Mul", "Transpose", "Reshape", "DequantizeLinear", "Identity", "Squeeze")
# Nodes that move or describe numbers; an engine runs them at no cost or not at all.
SHAPES_ALONE = {
    *("Shape", "Squeeze", "Unsqueeze", "Reshape", "Constant", "ConstantOfShape", "Identity"),
    *("Range", "Concat", "Gather", "Expand", "Cast", "Transpose", "Flatten", "Slice", "Split"),
}
# Where the second operand, a weight if any, stands among a node's inputs.
OPERANDS = {"QLinearConv": (0, 3), "QLinearMatMul": (0, 3)}


@dataclass(frozen=True)
class Product:
    """One product of a graph.

    operations : twice its multiply-adds
    weights : numbers of its stored matrix, 0 where both sides are computed or where another product
        before it reads the same matrix
    stored : bytes of them in the file
    moved : numbers of its other operand and of its result
    integer : whether it multiplies whole numbers
    """

    name: str
    kind: str
    operations: int
    weights: int
    stored: int
    moved: int
    integer: bool


@dataclass(frozen=True)
class GraphCost:
    """What one run of a graph costs.

    products : in the graph's order
    interface : bytes of the graph's inputs and outputs
    nodes : nodes that compute, before an engine fuses any
    """

    products: tuple[Product, ...]
    interface: int
    nodes: int

    @property
    def weights(self) -> int:
        """Numbers of all stored matrices."""
        return sum(product.weights for product in self.products)

    def operations(self, integer: bool) -> int:
        """Of the products in whole numbers, or of the others."""
        return sum(p.operations for p in self.products if p.integer == integer)

    def bytes_read(self, wide: float = 4.0) -> float:
        """Weights once, inputs and outputs once: what a run moves at least.

        wide : bytes of a weight that is not multiplied as a whole number. ONNX Runtime on the CPU
            widens those to float32 when it opens the graph, however they are stored
        """
        weights = sum(p.weights * (1.0 if p.integer else wide) for p in self.products)
        return weights + self.interface


def count_graph(data: bytes, sizes: Mapping[str, int]) -> GraphCost:
    """Count a graph.

    data : a serialised ONNX model
    sizes : the value of each named dimension of its inputs, such as B, R and S

    The graph is run once on zeros, so that every shape is that of a run. Raises ``EngineError`` for
    a dimension without a size, and for a product of unknown kind.
    """
    import onnx

    model = onnx.load_model_from_string(data)
    shapes, interface = _run(model, sizes)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    seen: set[str] = set()
    found = [_count(node, shapes, stored, makers, seen) for node in model.graph.node]
    nodes = sum(node.op_type not in SHAPES_ALONE for node in model.graph.node)
    return GraphCost(tuple(p for p in found if p is not None), interface, nodes)


def decoder_sizes(data: bytes, *, batch: int, beams: int, positions: int) -> dict[str, int]:
    """The named dimensions of a bundle's decoder, for ``count_graph``: the contract's R, B, K T."""
    import onnx

    rows, slots = batch * beams, beams * positions
    whole = {"token": (rows,), "parent": (rows,), "ancestry": (rows, slots)}
    starts = {"memory.": (batch,), "cache.": (batch, slots), "carry.": (rows,)}
    sizes = {}
    for spec in onnx.load_model_from_string(data).graph.input:
        prefix = f"{spec.name.partition('.')[0]}."
        known = whole.get(spec.name, starts.get(prefix, ()))
        for dim, size in zip(spec.type.tensor_type.shape.dim, known, strict=False):
            if dim.dim_param:
                sizes[dim.dim_param] = size
    return sizes


def _run(
    model: onnx.ModelProto, sizes: Mapping[str, int]
) -> tuple[dict[str, tuple[int, ...]], int]:
    """The shape of every value of a run on zeros, and the bytes of inputs and outputs."""
    import onnx
    import onnxruntime as ort

    feeds: dict[str, Any] = {}
    for spec in model.graph.input:
        tensor = spec.type.tensor_type
        shape = []
        for dim in tensor.shape.dim:
            if dim.dim_param and dim.dim_param not in sizes:
                raise EngineError(
                    f"input {spec.name!r} has the dimension {dim.dim_param!r}; give its size"
                )
            shape.append(sizes[dim.dim_param] if dim.dim_param else dim.dim_value)
        feeds[spec.name] = np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    outputs = [spec.name for spec in model.graph.output]
    weights = {tensor.name for tensor in model.graph.initializer}
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    asked = list(outputs)
    for node in model.graph.node:
        for name in node.output:
            if name and name not in asked and name not in weights:
                asked.append(name)
                wide.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(
        wide.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = dict(zip(asked, session.run(asked, feeds), strict=True))
    shapes = {name: tuple(np.shape(value)) for name, value in (*feeds.items(), *found.items())}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    size = sum(array.nbytes for array in feeds.values())
    return shapes, size + sum(np.asarray(found[name]).nbytes for name in outputs)


def _count(
    node: onnx.NodeProto,
    shapes: Mapping[str, tuple[int, ...]],
    stored: Mapping[str, onnx.TensorProto],
    makers: Mapping[str, onnx.NodeProto],
    seen: set[str],
) -> Product | None:
    """A node as a product; None for one that is none. seen : matrices that are counted already"""
    kind = node.op_type
    left, right = OPERANDS.get(kind, (0, 1))
    if kind in CONVOLUTIONS:
        kernel = shapes[node.input[right]]
        result = math.prod(shapes[node.output[0]])
        operations = 2 * result * math.prod(kernel[1:])
    elif kind == "MatMulNBits":
        result = math.prod(shapes[node.output[0]])
        operations = 2 * result * _attribute(node, "K")
    elif kind in MATRICES:
        result = math.prod(shapes[node.output[0]])
        first = shapes[node.input[left]]
        inner = first[-2] if kind == "Gemm" and _attribute(node, "transA") else first[-1]
        operations = 2 * result * inner
    elif kind in RECURRENT:
        steps, batch = shapes[node.input[0]][:2]
        size = sum(math.prod(shapes[name]) for name in node.input[1:3])
        result = math.prod(shapes[node.output[0] or node.output[1]])
        operations = 2 * steps * batch * size
    elif kind in ("Einsum", "ConvTranspose", "Loop", "If", "Scan"):
        raise EngineError(f"the graph has the node {node.name!r} of kind {kind}: it is not counted")
    else:
        return None
    weight = _weight(node.input[right], stored, makers)
    numbers, size = 0, 0
    if kind == "MatMulNBits":
        numbers = _attribute(node, "K") * _attribute(node, "N")
        size = sum(_size(stored[name]) for name in node.input[1:3])
    elif kind in RECURRENT:
        numbers = sum(math.prod(shapes[name]) for name in node.input[1:3])
        size = 4 * numbers
    elif weight is not None and weight.name not in seen:
        seen.add(weight.name)
        numbers, size = math.prod(weight.dims), _size(weight)
    moved = math.prod(shapes[node.input[left]]) + result
    if weight is None and not numbers:
        moved += math.prod(shapes[node.input[right]])
    return Product(node.name, kind, operations, numbers, size, moved, _integer(node, makers))


def _integer(node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Whole numbers by its kind, or between a quantiser and a dequantiser of both operands."""
    if node.op_type in INTEGER:
        return True
    if node.op_type not in ("Conv", "MatMul", "Gemm") or len(node.input) < 2:
        return False
    both = [makers.get(name) for name in node.input[:2]]
    if any(maker is None or maker.op_type != "DequantizeLinear" for maker in both):
        return False
    before = makers.get(both[0].input[0]) if both[0] is not None else None
    return before is not None and before.op_type == "QuantizeLinear"


def _weight(
    name: str,
    stored: Mapping[str, onnx.TensorProto],
    makers: Mapping[str, onnx.NodeProto],
) -> onnx.TensorProto | None:
    """The stored tensor that a value is made of by nothing but scales and turns."""
    while name not in stored:
        maker = makers.get(name)
        if maker is None or maker.op_type not in PASSES:
            return None
        name = maker.input[0]
        others = maker.input[1:] if maker.op_type == "Mul" else ()
        if any(_weight(other, stored, makers) is None for other in others):
            return None
    return stored[name]


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), 0)


def _size(tensor: onnx.TensorProto) -> int:
    import onnx

    if tensor.raw_data:
        return len(tensor.raw_data)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(math.prod(tensor.dims) * np.dtype(dtype).itemsize)
