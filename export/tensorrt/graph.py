"""What the passes over an ONNX graph share: constants by name, consumers, a new list of nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx


class Graph:
    """An editable copy of a graph. ``nodes`` may be replaced; ``finish`` puts it together."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        from onnx import ModelProto

        self.proto = ModelProto()
        self.proto.CopyFrom(proto)
        self.nodes: list[onnx.NodeProto] = _in_order(list(self.proto.graph.node))
        self._constants = {item.name: item for item in self.proto.graph.initializer}

    def is_constant(self, name: str) -> bool:
        return name in self._constants

    def constant(self, name: str) -> npt.NDArray[Any]:
        """The value of a constant."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self._constants[name])

    def constant_dtype(self, name: str) -> int:
        """The constant's ``TensorProto`` data type, without reading its value."""
        return self._constants[name].data_type

    def add_constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """Add or replace a constant; its name is given back."""
        from onnx import numpy_helper

        self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """Tensor -> the nodes that take it, as ``nodes`` stands."""
        found: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                found[name].append(node)
        return found

    @property
    def outputs(self) -> set[str]:
        return {value.name for value in self.proto.graph.output}

    def finish(self, opset: int | None = None) -> onnx.ModelProto:
        """The graph with ``nodes`` and the constants they still use.

        opset : raised to this at least, where given
        """
        self._drop_unused()
        used = {name for node in self.nodes for name in node.input} | self.outputs
        graph = self.proto.graph
        nodes = list(self.nodes)
        kept = [item for name, item in self._constants.items() if name in used]
        for old, new in ((graph.node, nodes), (graph.initializer, kept)):
            copies = [type(item)() for item in new]
            for copy, item in zip(copies, new, strict=True):
                copy.CopyFrom(item)
            del old[:]
            old.extend(copies)
        del graph.value_info[:]
        domains = {node.domain for node in nodes} | {""}
        imports = [item for item in self.proto.opset_import if item.domain in domains]
        for item in imports:
            if item.domain == "" and opset is not None:
                item.version = max(item.version, opset)
        kept_imports = [(item.domain, item.version) for item in imports]
        del self.proto.opset_import[:]
        for domain, version in kept_imports:
            self.proto.opset_import.add(domain=domain, version=version)
        return self.proto

    def _drop_unused(self) -> None:
        """Nodes that lead to no output go."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        self.nodes = kept[::-1]


def _in_order(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Each node after those it takes from: ONNX Runtime's quantiser appends some at the end."""
    makers = {name: number for number, node in enumerate(nodes) for name in node.output if name}
    order: TopologicalSorter[int] = TopologicalSorter()
    for number, node in enumerate(nodes):
        order.add(number, *(makers[name] for name in node.input if name in makers))
    return [nodes[number] for number in order.static_order()]


def rename_inputs(nodes: Sequence[onnx.NodeProto], names: dict[str, str]) -> None:
    """Let every node take ``names[x]`` where it took x, through chains of such names."""
    for node in nodes:
        for index, name in enumerate(node.input):
            while name in names:
                name = names[name]
            node.input[index] = name


def attribute(node: onnx.NodeProto, name: str) -> Any:
    """An attribute's value; None where the node has no such attribute."""
    from onnx import helper

    for item in node.attribute:
        if item.name == name:
            return helper.get_attribute_value(item)
    return None


def has_subgraph(node: onnx.NodeProto) -> bool:
    """Whether the node has a body, as If, Loop and Scan have."""
    return any(item.HasField("g") or item.graphs for item in node.attribute)
