"""Finds a causal Transformer in a decoder graph: GPT-2's layers or BERT's, with cross-attention, a
prefix, or neither. Whatever is not exactly that raises ``Unlike``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecap.runtime.engines.cuda_onnx import Graph, Unlike, require, tied
from edgecap.runtime.engines.cuda_spec import (
    Cross,
    Layer,
    Linear,
    Norm,
    Transform,
    TransformerSpec,
)

if TYPE_CHECKING:
    import onnx

# What attention consists of, in the spellings of the exporters; all else is another network.
ATTENTION = {"MatMul", "Softmax", "Concat", "Slice", "Transpose", "Reshape", "Add", "Mul"}
ATTENTION |= {"ReduceSum", "Where", "Unsqueeze", "Squeeze", "Expand", "Cast", "Equal", "Range"}
ATTENTION |= {"Div", "Split", "Identity"}


def read_transformer(graph: Graph) -> TransformerSpec:
    """Raises Unlike."""
    count = sum(name.startswith("cache.key.") for name in graph.inputs)
    if count == 0:
        raise Unlike("it has no caches named key and value")
    return _Reader(graph, count).read()


@dataclass
class _Attention:
    heads: int
    scale: float
    leaves: set[str]


class _Reader:
    def __init__(self, graph: Graph, count: int) -> None:
        self.graph, self.count = graph, count
        shape = _shape(graph, "memory.key.0") if "memory.key.0" in graph.inputs else []
        self.memory_rows = len(shape) == 3
        self.memory = shape[1] if self.memory_rows else shape[3] if shape else 0
        self.heads = shape[1] if len(shape) == 4 else 0

    def read(self) -> TransformerSpec:
        graph = self.graph
        found = graph.linear("logits")
        head, current = found.what, found.source
        transform, norm = None, None
        if graph.is_from(current, "LayerNormalization"):
            ending = graph.norm(current)
            if graph.is_from(ending.source, "Relu", "Mul", "Gelu", "Tanh"):
                act = graph.activation(ending.source)
                layer = graph.linear(act.source)
                transform = Transform(layer.what, act.what, ending.what)
                current = layer.source
        before = self._is_before(current)
        if before and graph.is_from(current, "LayerNormalization"):
            ending = graph.norm(current)
            norm, current = ending.what, ending.source
        layers: list[Layer] = []
        for index in reversed(range(self.count)):
            one, current = self._layer(index, current, before)
            layers.insert(0, one)
        return self._words(head, layers, before, norm, transform, current)

    # ---- layers ------------------------------------------------------------------------------

    def _is_before(self, current: str) -> bool:
        """Whether the last layer has its norms before what they belong to."""
        graph = self.graph
        total = graph.norm(current).source if graph.is_from(current, "LayerNormalization") else ""
        if not total:
            return True
        rest, _, _, source = self._feed(total)
        return not graph.same(rest, source)

    def _feed(self, total: str) -> tuple[str, Linear, tuple[Linear, str], str]:
        """rest + down(act(up(source))) -> rest, down, (up, act), source"""
        graph = self.graph
        for rest, branch in _both(graph.operands(total, "Add")):
            if not graph.is_linear(branch):
                continue
            down = graph.linear(branch)
            if not graph.is_from(down.source, "Relu", "Mul", "Gelu", "Tanh"):
                continue
            act = graph.activation(down.source)
            up = graph.linear(act.source)
            return rest, down.what, (up.what, act.what), up.source
        raise Unlike(f"{total} is no sum with a feed-forward layer")

    def _layer(self, index: int, current: str, before: bool) -> tuple[Layer, str]:
        graph = self.graph
        after: list[Norm] = []

        def enter(tensor: str) -> str:
            """The sum whose norm ``tensor`` is, where norms stand after it."""
            if before:
                return tensor
            found = graph.norm(tensor)
            after.append(found.what)
            return found.source

        def inner(source: str, rest: str) -> Norm | None:
            """The norm between the residual stream and a branch that begins at ``source``."""
            if not before:
                require(graph.same(source, rest), f"{source} is not the residual {rest}")
                return None
            found = graph.norm(source)
            require(graph.same(found.source, rest), f"{source} is no norm of {rest}")
            own: Norm = found.what
            return own

        rest, down, (up, activation), source = self._feed(enter(current))
        feed_norm, current = inner(source, rest), rest
        split = graph.node(f"append.key.{index}", "Split")
        require(graph.node(f"append.value.{index}", "Split") is split, "keys and values differ")
        parts = list(split.output)
        require(
            len(parts) == 3
            and graph.back(f"append.key.{index}") == parts[1]
            and graph.back(f"append.value.{index}") == parts[2],
            "query, key and value are no one product",
        )
        cross, cross_norm = None, None
        total = enter(current)
        rest, out, seen = self._attended(total, index, parts)
        if parts[0] not in seen.leaves:
            query = self._cross_query(total, index)
            cross_norm, current = inner(query[1], rest), rest
            cross = (query[0], out, seen.scale)
            total = enter(current)
            rest, out, seen = self._attended(total, index, parts)
        own = {*parts, f"cache.key.{index}", f"cache.value.{index}", "ancestry"}
        ahead = {f"memory.key.{index}", f"memory.value.{index}"}
        if cross is None and self.memory:
            own |= ahead
        missing = own - seen.leaves
        require(not missing, f"layer {index} does not attend over {', '.join(sorted(missing))}")
        odd = seen.leaves - own - {"token"}
        require(not odd, f"layer {index} attends over {', '.join(sorted(odd))}")
        require(self.heads in (0, seen.heads), "heads differ between layers")
        self.heads = seen.heads
        qkv = graph.linear(split.input[0])
        require(qkv.what.outputs == 3 * qkv.what.inputs, "its keys are not as wide as its words")
        norm, current = inner(qkv.source, rest), rest
        if not before:
            feed_norm, norm = after[0], after[-1]
            cross_norm = after[1] if cross else None
        assert norm is not None
        assert feed_norm is not None
        crossing = None
        if cross is not None:
            assert cross_norm is not None
            crossing = Cross(cross[0], cross[1], cross_norm, cross[2])
        layer = Layer(qkv.what, out, norm, seen.scale, crossing, up, down, feed_norm, activation)
        return layer, current

    def _attended(self, total: str, index: int, parts: list[str]) -> tuple[str, Linear, _Attention]:
        """rest + out(attention) -> rest, out, and what the attention is."""
        graph = self.graph
        for rest, branch in _both(graph.operands(total, "Add")):
            if not graph.is_linear(branch):
                continue
            out = graph.linear(branch)
            stop = [*parts, *self._cross_queries(index)]
            nodes, leaves = graph.region(out.source, stop)
            if not any(node.op_type == "Softmax" for node in nodes):
                continue
            odd = {node.op_type for node in nodes} - ATTENTION
            require(not odd, f"its attention has {', '.join(sorted(odd))}")
            return rest, out.what, self._measure(nodes, leaves)
        raise Unlike(f"{total} is no sum with attention")

    def _measure(self, nodes: list[onnx.NodeProto], leaves: set[str]) -> _Attention:
        graph = self.graph
        softmax = [node for node in nodes if node.op_type == "Softmax"]
        require(len(softmax) == 1, "attention has more than one softmax")
        scale = 1.0
        for node in nodes:
            if node.op_type in ("Mul", "Div"):
                found = graph.scalar(node.input[1])
                if found is None:
                    found = graph.scalar(node.input[0]) if node.op_type == "Mul" else None
                if found is not None:
                    scale *= found if node.op_type == "Mul" else 1 / found
        sides = set()
        for node in nodes:
            if node.op_type == "Reshape":
                last = self._last_sides(node.input[1])
                if last is not None:
                    sides.add(last)
        require(len(sides) == 1, "attention's heads are not to be told")
        heads, depth = sides.pop()
        width = _shape(graph, "cache.key.0")[2]
        require(heads * depth == width, f"{heads} heads of {depth} are no width of {width}")
        return _Attention(heads, scale, leaves)

    def _last_sides(self, name: str) -> tuple[int, int] | None:
        """The heads and their width in the shape [B, K, h, d / h]; None for another shape."""
        constant = self.graph.constant(name)
        if constant is not None:
            values = [int(side) for side in constant]
            return (values[2], values[3]) if len(values) == 4 else None
        node = self.graph.producers.get(name)
        if node is None or node.op_type != "Concat" or len(node.input) != 4:
            return None
        found = [self.graph.scalar(part) for part in node.input[2:]]
        if found[0] is None or found[1] is None:
            return None
        return int(found[0]), int(found[1])

    # ---- cross-attention ---------------------------------------------------------------------

    def _cross_queries(self, index: int) -> list[str]:
        """The query of the cross-attention of a layer: what is multiplied with its keys and is a
        product of its own. Empty for a prefix, whose query is part of the joint product."""
        graph = self.graph
        for node in graph.nodes:
            if node.op_type == "MatMul" and f"memory.key.{index}" in node.input:
                name = graph.back(node.input[0])
                while graph.is_from(name, "Transpose"):
                    name = graph.back(graph.node(name, "Transpose").input[0])
                if graph.is_linear(name):
                    return [name]
        return []

    def _cross_query(self, total: str, index: int) -> tuple[Linear, str]:
        names = self._cross_queries(index)
        require(bool(names), f"{total} attends over nothing that is known")
        for _, branch in _both(self.graph.operands(total, "Add")):
            if self.graph.is_linear(branch):
                _, leaves = self.graph.region(self.graph.linear(branch).source, names)
                wanted = {names[0], f"memory.key.{index}", f"memory.value.{index}"}
                odd = leaves - wanted - {"token"}
                if wanted <= leaves and not odd:
                    found = self.graph.linear(names[0])
                    return found.what, found.source
        raise Unlike(f"layer {index} does not attend over its memory alone")

    # ---- words -------------------------------------------------------------------------------

    def _words(
        self,
        head: Linear,
        layers: list[Layer],
        before: bool,
        norm: Norm | None,
        transform: Transform | None,
        current: str,
    ) -> TransformerSpec:
        graph = self.graph
        norm_words = None
        if graph.is_from(current, "LayerNormalization"):
            found = graph.norm(current)
            norm_words, current = found.what, found.source
        for word, place in _both(graph.operands(current, "Add")):
            first = graph.is_from(word, "Where")
            if first:
                node = graph.node(word, "Where")
                require(
                    graph.back(node.input[1]) == "memory.first"
                    and self._is_first_step(node.input[0]),
                    "it chooses between words in another way",
                )
                word = node.input[2]
            if not graph.is_from(word, "Gather") or not graph.is_from(place, "Gather"):
                continue
            words = graph.node(word, "Gather")
            if graph.back(words.input[1]) != "token":
                continue
            places = graph.node(place, "Gather")
            offset = self._offset(places.input[1])
            require(all(_axis(node) == 0 for node in (words, places)), "it looks up columns")
            table = graph.floats(words.input[0], 2)
            require(len(table) == head.outputs, "it reads other words than it says")
            return TransformerSpec(
                words=table,
                places=graph.floats(places.input[0], 2),
                offset=offset,
                heads=self.heads,
                before=before,
                norm_words=norm_words,
                layers=tuple(layers),
                norm=norm,
                transform=transform,
                head=tied(head, table),
                memory=self.memory,
                memory_rows=self.memory_rows,
                first=first,
            )
        raise Unlike("its first layer does not read words and their places")

    def _is_first_step(self, name: str) -> bool:
        a, b = self.graph.operands(name, "Equal")
        return self.graph.back(a) == "position" and self.graph.scalar(b) == 0

    def _offset(self, name: str) -> int:
        """What is added to the position before its place is looked up."""
        graph = self.graph
        while graph.is_from(name, "Gather"):  # the one value of a list
            name = graph.node(name, "Gather").input[0]
        name = graph.back(name)
        if name == "position":
            return 0
        a, b = graph.operands(name, "Add")
        shift = graph.scalar(b)
        require(graph.back(a) == "position" and shift is not None, "it has no position")
        return int(shift or 0)


def _shape(graph: Graph, name: str) -> list[int]:
    """Sides of an input; free ones are 0."""
    if name not in graph.inputs:
        raise Unlike(f"it has no input {name}")
    return [int(side.dim_value) for side in graph.inputs[name].type.tensor_type.shape.dim]


def _axis(node: onnx.NodeProto) -> int:
    return next((int(item.i) for item in node.attribute if item.name == "axis"), 0)


def _both(pair: tuple[str, str]) -> list[tuple[str, str]]:
    return [pair, (pair[1], pair[0])]
