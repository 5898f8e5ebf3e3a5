"""A float32 graph in float16, for a strongly typed network; float32 where float16 would not do.

In float32 stay: layer norms, softmax, sums and means over many values, powers and exponentials,
and operators with a constant that float16 cannot hold. Everything else is computed in float16.

Inputs and outputs: ``memory.*``, ``carry.*``, ``cache.*``, ``next.*`` and ``append.*`` become
float16, so that a step moves half the bytes; ``logits``, ``features`` and ``novelty`` stay float32,
as the contract asks. Integers and booleans are what they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.export.tensorrt.graph import Graph, has_subgraph
from edgecap.runtime.errors import EngineError

if TYPE_CHECKING:
    import onnx

HALF_PREFIXES = ("memory.", "carry.", "cache.", "next.", "append.")
# QuantizeLinear and DequantizeLinear take float16 from opset 19 on; TensorRT 10.3 reads up to 20.
OPSET = 19
LARGEST, SMALLEST = 65504.0, 2.0**-24

_WIDE = {
    *("LayerNormalization", "BatchNormalization", "InstanceNormalization", "GroupNormalization"),
    *("Softmax", "LogSoftmax", "Exp", "Log", "Pow", "Sqrt", "Reciprocal", "LpNormalization"),
    *("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"),
    *("ReduceProd", "CumSum", "Range", "ConstantOfShape", "EyeLike", "Resize"),
}  # fmt: skip


def to_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in float16. Raises ``EngineError`` for operators with a body, such as Loop."""
    return _Half(proto).run()


class _Half:
    """One pass over the nodes, which stand in the order of their computation."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        import onnx
        from onnx import TensorProto

        self.graph = Graph(proto)
        inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True).graph
        values = (*inferred.value_info, *inferred.input, *inferred.output)
        self.floats = {
            v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT
        } | {item.name for item in proto.graph.initializer if item.data_type == TensorProto.FLOAT}
        self.is_half: dict[str, bool] = {}  # tensors that are computed, as they are stored
        self.casts: dict[tuple[str, bool], str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        from onnx import TensorProto

        graph = self.graph.proto.graph
        for value in graph.input:
            if value.name in self.floats:
                self.is_half[value.name] = half = value.name.startswith(HALF_PREFIXES)
                if half:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT16
        for node in self.graph.nodes:
            self._convert(node)
        for value in graph.output:
            if value.name in self.floats:
                half = value.name.startswith(HALF_PREFIXES)
                self._store_output(value.name, half)
                if half:
                    value.type.tensor_type.elem_type = TensorProto.FLOAT16
        self.graph.nodes = self.nodes
        quantised = any(node.op_type == "QuantizeLinear" for node in self.nodes)
        return self.graph.finish(OPSET if quantised else None)

    def _convert(self, node: onnx.NodeProto) -> None:
        from onnx import TensorProto

        if has_subgraph(node):
            raise EngineError(
                f"{node.op_type} {node.name!r} has a body, which cannot be cast to float16; "
                "give --precision fp32"
            )
        if node.op_type == "Constant":
            raise EngineError(f"Constant {node.name!r} is no initializer; export the model again")
        cast = node.op_type == "Cast"
        half = not self._stays_wide(node)
        if not (cast and node.input[0] in self.floats and node.output[0] not in self.floats):
            for index, name in enumerate(node.input):
                if name in self.floats:
                    node.input[index] = self._as(name, half)
        if cast and node.output[0] in self.floats:
            for item in node.attribute:
                if item.name == "to":
                    item.i = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.nodes.append(node)
        for name in node.output:
            if name in self.floats:
                self.is_half[name] = half

    def _stays_wide(self, node: onnx.NodeProto) -> bool:
        if node.op_type in _WIDE:
            return True
        if node.op_type == "Gather":  # an embedding: its rows are read, not computed with
            return False
        constants = [n for n in node.input if n in self.floats and self.graph.is_constant(n)]
        return any(
            self.graph.constant(name).size == 1 and not fits(self.graph.constant(name))
            for name in constants
        )

    def _as(self, name: str, half: bool) -> str:
        """The tensor in the wanted type: itself, another constant, or a Cast made once."""
        from onnx import TensorProto, helper

        if self.graph.is_constant(name):
            if not half:
                return name
            other = f"{name}.half"
            if not self.graph.is_constant(other):
                self.graph.add_constant(other, halve(self.graph.constant(name)))
            return other
        if self.is_half[name] == half:
            return name
        key = (name, half)
        if key not in self.casts:
            self.casts[key] = f"{name}.{'half' if half else 'float'}"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            cast = helper.make_node("Cast", [name], [self.casts[key]], to=to)
            cast.name = f"cast_{self.casts[key]}"
            self.nodes.append(cast)
        return self.casts[key]

    def _store_output(self, name: str, half: bool) -> None:
        """Let a graph output have its type under its own name."""
        from onnx import TensorProto, helper

        if self.graph.is_constant(name) or self.is_half[name] == half:
            return
        inner = f"{name}.inner"
        for node in self.nodes:
            for names in (node.input, node.output):
                for index, other in enumerate(names):
                    if other == name:
                        names[index] = inner
        to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        cast = helper.make_node("Cast", [inner], [name], to=to)
        cast.name = f"cast_{name}"
        self.nodes.append(cast)


def fits(values: npt.NDArray[Any]) -> bool:
    """Whether float16 holds the values: none overflows, none that is not 0 becomes 0."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    return sizes.size == 0 or bool(sizes.max() <= LARGEST and sizes.min() >= SMALLEST)


def halve(values: npt.NDArray[Any]) -> npt.NDArray[np.float16]:
    """float16; what is too large becomes the largest finite value, infinities stay."""
    clipped = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), values)
    return clipped.astype(np.float16)
