"""One set of scales, two spellings: a bundle's graphs in the spelling that TensorRT parses.

A bundle is quantised as ONNX Runtime computes fastest on a CPU: uint8 activations with a zero
point, int32 biases, and weights that stay float stored as int8 and widened by Cast and Mul.
TensorRT takes int8 with a zero point of 0 alone, float biases, and no int8 constant but before a
DequantizeLinear; and it wants the QuantizeLinear of a convolution after its Relu, not before.
Products in integers of other kinds become float products, see ``integers.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecap.export.tensorrt.graph import Graph, attribute, rename_inputs
from edgecap.export.tensorrt.integers import widen_products

if TYPE_CHECKING:
    import onnx

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
# They move pixels about and compute nothing, so they may as well come after the cast to float.
_MOVES = {
    *("Transpose", "Reshape", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Identity"),
    *("Cast", "Shape"),
}


def respell(proto: onnx.ModelProto, *, quantised: bool) -> onnx.ModelProto:
    """A graph of a bundle as TensorRT takes it: equal inputs, outputs and meaning.

    quantised : keep activations in int8, symmetric; else they are computed in float32 throughout
    """
    graph = Graph(proto)
    _widen(graph)
    widen_products(graph)
    if quantised:
        _fold_dequantised(graph, keep_int8=True)
        _one_quantiser_after_relu(graph)
        _make_symmetric(graph)
    else:
        _fold_dequantised(graph, keep_int8=False)
        _drop_quantisers(graph)
    _cast_bytes_first(graph)
    return graph.finish()


def is_quantised(proto: onnx.ModelProto) -> bool:
    """Whether activations of the graph are quantised, not weights alone."""
    return any(node.op_type == "QuantizeLinear" for node in proto.graph.node)


def _widen(graph: Graph) -> None:
    """Fold ``Cast(int8) * scale``, which ``quantize.store_weights_int8`` writes, into float32."""
    from onnx import TensorProto

    wide: dict[str, str] = {}  # output of a Cast -> the int8 constant
    kept = []
    for node in graph.nodes:
        source = node.input[0] if node.input else ""
        if (
            node.op_type == "Cast"
            and attribute(node, "to") == TensorProto.FLOAT
            and graph.is_constant(source)
            and graph.constant_dtype(source) == TensorProto.INT8
        ):
            wide[node.output[0]] = source
        elif node.op_type == "Mul" and node.input[0] in wide and graph.is_constant(node.input[1]):
            values = graph.constant(wide[node.input[0]]).astype(np.float32)
            graph.add_constant(node.output[0], values * graph.constant(node.input[1]))
        else:
            kept.append(node)
    for node in kept:
        for name in set(node.input) & wide.keys():  # a widened constant used without a scale
            graph.add_constant(name, graph.constant(wide[name]).astype(np.float32))
    graph.nodes = kept


def _fold_dequantised(graph: Graph, *, keep_int8: bool) -> None:
    """Fold DequantizeLinear of a constant; symmetric int8 weights stay if ``keep_int8``."""
    from onnx import TensorProto

    kept = []
    for node in graph.nodes:
        if node.op_type != "DequantizeLinear" or not graph.is_constant(node.input[0]):
            kept.append(node)
            continue
        zero = graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros((), np.int8)
        symmetric = graph.constant_dtype(node.input[0]) == TensorProto.INT8 and not zero.any()
        if keep_int8 and symmetric:
            kept.append(node)
            continue
        values, scale = graph.constant(node.input[0]), graph.constant(node.input[1])
        if scale.ndim == 1 and scale.size > 1:
            axis = attribute(node, "axis")
            shape = [1] * values.ndim
            shape[1 if axis is None else axis] = scale.size
            scale, zero = scale.reshape(shape), zero.reshape(shape if zero.size > 1 else ())
        # In integers first, as the operator is defined: int32 biases do not fit float32.
        whole = values.astype(np.int64) - zero.astype(np.int64)
        graph.add_constant(node.output[0], (whole * scale.astype(np.float64)).astype(np.float32))
    graph.nodes = kept


def _one_quantiser_after_relu(graph: Graph) -> None:
    """Take Q and DQ out from between an operator and the Relu that is quantised itself.

    The Relu then joins the convolution before it, and one rounding is saved.
    """
    consumers = graph.consumers()
    makers = {name: node for node in graph.nodes for name in node.output}
    gone: dict[str, str] = {}
    dropped = set()
    for relu in graph.nodes:
        if relu.op_type != "Relu" or relu.output[0] in graph.outputs:
            continue
        wide = makers.get(relu.input[0])
        small = makers.get(wide.input[0]) if wide is not None else None
        if wide is None or small is None:
            continue
        pair = wide.op_type == "DequantizeLinear" and small.op_type == "QuantizeLinear"
        alone = len(consumers[wide.output[0]]) == len(consumers[small.output[0]]) == 1
        alone = alone and wide.output[0] not in graph.outputs
        after = [node.op_type for node in consumers[relu.output[0]]]
        if pair and alone and after == ["QuantizeLinear"]:
            gone[wide.output[0]] = small.input[0]
            dropped |= {id(wide), id(small)}
    graph.nodes = [node for node in graph.nodes if id(node) not in dropped]
    rename_inputs(graph.nodes, gone)


def _make_symmetric(graph: Graph) -> None:
    """uint8 with a zero point -> int8 without: the range becomes max(|low|, |high|) each way."""
    done: dict[tuple[str, str], tuple[str, str]] = {}
    for node in graph.nodes:
        if node.op_type not in QUANTISERS:
            continue
        key = (node.input[1], node.input[2] if len(node.input) > 2 else "")
        zero = graph.constant(key[1]) if key[1] else np.zeros((), np.uint8)
        if zero.dtype == np.int8 and not zero.any():
            continue
        if key not in done:
            scale = graph.constant(key[0]).astype(np.float64)
            ends = (np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max)
            low, high = ((int(end) - zero.astype(np.int64)) * scale for end in ends)
            wider = np.maximum(np.abs(low), np.abs(high)) / 127
            done[key] = (
                graph.add_constant(f"{key[0]}.symmetric", wider.astype(np.float32)),
                graph.add_constant(f"{key[0]}.no_zero_point", np.zeros(zero.shape, np.int8)),
            )
        del node.input[1:]
        node.input.extend(done[key])


def _drop_quantisers(graph: Graph) -> None:
    """Activations without rounding: each Q and DQ becomes a plain wire."""
    gone = {n.output[0]: n.input[0] for n in graph.nodes if n.op_type in QUANTISERS}
    graph.nodes = [node for node in graph.nodes if node.op_type not in QUANTISERS]
    rename_inputs(graph.nodes, gone)
    for name in graph.outputs & gone.keys():  # what fed it takes the output's name
        source = name
        while source in gone:
            source = gone[source]
        rename_inputs(graph.nodes, {source: name})
        for node in graph.nodes:
            for index, made in enumerate(node.output):
                if made == source:
                    node.output[index] = name


def _cast_bytes_first(graph: Graph) -> None:
    """Cast a uint8 input at once: TensorRT takes uint8 as a network's input and nowhere else."""
    from onnx import TensorProto, helper

    for value in graph.proto.graph.input:
        if value.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        name = f"{value.name}.float"
        bytes_too = {value.name}  # tensors that are uint8 as things stand
        at_once = True
        for node in graph.nodes:
            if not bytes_too & set(node.input):
                continue
            if node.op_type not in _MOVES:
                break  # it computes with bytes: left as it is, for the lint to name
            if node.op_type not in ("Cast", "Shape"):
                bytes_too |= set(node.output)
                at_once = False
            at_once = at_once and node.op_type != "Shape"
        else:
            if not at_once:
                rename_inputs(graph.nodes, {value.name: name})
                cast = helper.make_node("Cast", [value.name], [name], to=TensorProto.FLOAT)
                cast.name = f"cast_{value.name}"
                graph.nodes.insert(0, cast)
