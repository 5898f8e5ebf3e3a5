"""Which operators the ONNX parser of TensorRT 10.3 takes, looked up before anything is built.

JetPack 6 stays on TensorRT 10.3, whose parser takes less than those of later releases. The table
``operators-10.3.json`` says what it takes and where that was read. A graph without findings may
still fail in a builder: the table knows types and constants, not every combination of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgecap.export.tensorrt.graph import Graph, has_subgraph

if TYPE_CHECKING:
    import onnx

MAX_RANK = 8  # nvinfer1::Dims
INPUT_TYPES = {"FP32", "FP16", "BF16", "INT64", "INT32", "BOOL", "UINT8"}


class Operator(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the parser takes of one operator.

    types : of its first input; of the second for Where, whose first is the condition
    constant : indexes of inputs that must be constants; zero_point : of one that must be all zero
    ranks : of its first input, all if empty; fixed : indexes of inputs without free sides
    outputs : how many of its outputs exist, all if 0
    """

    types: tuple[str, ...]
    constant: tuple[int, ...] = ()
    zero_point: int | None = None
    ranks: tuple[int, ...] = ()
    fixed: tuple[int, ...] = ()
    outputs: int = 0


class Table(msgspec.Struct, frozen=True):
    """The table of one release, with its source."""

    release: str
    opset: tuple[int, int]
    source: str
    date: str
    operators: dict[str, Operator]


@dataclass(frozen=True)
class Finding:
    """One thing that the parser does not take. ``node`` is empty where it is the graph's own."""

    node: str
    operator: str
    message: str

    def __str__(self) -> str:
        where = f"{self.operator} {self.node!r}: " if self.operator else ""
        return f"{where}{self.message}"


@cache
def operator_table() -> Table:
    """The table of TensorRT 10.3."""
    path = Path(__file__).with_name("operators-10.3.json")
    return msgspec.json.decode(path.read_bytes(), type=Table)


def lint(proto: onnx.ModelProto) -> list[Finding]:
    """What the parser of TensorRT 10.3 would not take of a graph, with the node's name."""
    import onnx

    table = operator_table()
    found = []
    versions = {item.domain: item.version for item in proto.opset_import}
    low, high = table.opset
    opset = versions.get("", versions.get("ai.onnx", 0))
    if not low <= opset <= high:
        found.append(Finding("", "", f"opset {opset}; TensorRT {table.release} reads {low}-{high}"))
    values = onnx.shape_inference.infer_shapes(proto).graph
    known = {v.name: v for v in (*values.value_info, *values.input, *values.output)}
    names = _type_names()
    types = {name: names.get(v.type.tensor_type.elem_type, "?") for name, v in known.items()}
    types |= {i.name: names.get(i.data_type, "?") for i in proto.graph.initializer}
    ranks = {
        name: (len(v.type.tensor_type.shape.dim) if v.type.tensor_type.HasField("shape") else None)
        for name, v in known.items()
    }
    ranks |= {i.name: len(i.dims) for i in proto.graph.initializer}
    found += [
        Finding("", "", f"input {v.name!r} is {types[v.name]}")
        for v in proto.graph.input
        if types[v.name] not in INPUT_TYPES
    ]
    graph = Graph(proto)
    inputs = {v.name for v in proto.graph.input}
    free = {v.name for v in known.values() if _has_free_side(v)}
    for node in graph.nodes:
        for message in _check(node, graph, types, ranks, inputs, free):
            found.append(Finding(node.name or node.output[0], node.op_type, message))
    return found


def _check(
    node: onnx.NodeProto,
    graph: Graph,
    types: dict[str, str],
    ranks: dict[str, int | None],
    inputs: set[str],
    free: set[str],
) -> list[str]:
    table = operator_table()
    rule = table.operators.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        prefix = f"{node.domain}." if node.domain else ""
        return [f"TensorRT {table.release} has no operator {prefix}{node.op_type}"]
    if has_subgraph(node):
        return ["its body is not looked into; a caption model's step has no loop of its own"]
    given = [name for name in node.input if name]
    messages = []
    first = given[1 if node.op_type == "Where" else 0] if given else ""
    kind = types.get(first, "?")
    if kind != "?" and kind not in rule.types:
        messages.append(f"its input {first!r} is {kind}; it takes {', '.join(rule.types)}")
    elif kind == "UINT8" and first not in inputs:
        messages.append(f"{first!r} is UINT8, which only an input of the network may be")
    for index in rule.constant:
        if index < len(node.input) and node.input[index]:
            name = node.input[index]
            if not graph.is_constant(name):
                messages.append(f"its input {name!r} must be a constant")
    zero = rule.zero_point
    if zero is not None and zero < len(node.input) and graph.is_constant(node.input[zero]):
        point = graph.constant(node.input[zero])
        if point.dtype == "uint8":
            messages.append("it quantises to UINT8; INT8 is taken")
        elif point.any():
            messages.append("its zero point is not 0")
    rank = ranks.get(first)
    if rule.ranks and rank is not None and rank not in rule.ranks:
        messages.append(f"{first!r} has {rank} sides; {', '.join(map(str, rule.ranks))} are taken")
    for index in rule.fixed:
        if index < len(node.input) and node.input[index] in free:
            messages.append(f"the shape of {node.input[index]!r} must be fixed")
    if rule.outputs and any(node.output[rule.outputs :]):
        messages.append(f"only {rule.outputs} of its outputs is made")
    for name in node.output:
        rank = ranks.get(name)
        if rank is not None and rank > MAX_RANK:
            messages.append(f"{name!r} has {rank} sides; {MAX_RANK} is the most")
    return messages


def _has_free_side(value: onnx.ValueInfoProto) -> bool:
    return any(not side.HasField("dim_value") for side in value.type.tensor_type.shape.dim)


def _type_names() -> dict[int, str]:
    from onnx import TensorProto as T

    return {
        T.FLOAT: "FP32",
        T.FLOAT16: "FP16",
        T.BFLOAT16: "BF16",
        T.DOUBLE: "FP64",
        T.INT64: "INT64",
        T.INT32: "INT32",
        T.INT8: "INT8",
        T.INT4: "INT4",
        T.UINT8: "UINT8",
        T.BOOL: "BOOL",
        T.FLOAT8E4M3FN: "FP8",
    }
