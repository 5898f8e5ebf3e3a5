"""What follows an encoder's convolutions, as steps on matrices: products, norms, attention.

Reshapes and transpositions are followed by numbering the values that they move, so that any order
of them is one gather. What the steps cannot compute raises ``Unlike`` and stays in ONNX Runtime.
runtime/native/encode_head.cpp runs what is made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.engines.cuda_onnx import Graph, Unlike, require
from edgecap.runtime.engines.onnx_weights import attributes

Numbers = npt.NDArray[np.int64]
Shape = tuple[int, ...]  # without the batch
MOVES = ("Reshape", "Transpose", "Split", "Unsqueeze", "Squeeze", "Identity", "Flatten")
ACTIVATIONS = ("Relu", "Tanh", "Gelu", "Mul")


@dataclass(frozen=True)
class Source:
    """Values that the convolutions or the picture give.

    number : of a map; -1 for the picture's boxes
    shape : (C, H, W), or (H, W, C) where channels come last
    """

    number: int
    shape: Shape
    channels_last: bool = False

    def places_first(self, numbers: Numbers) -> Numbers:
        """Numbers of values in [H, W, C], the kernels' order, from those in ``shape``."""
        if self.channels_last:
            return numbers
        channels, height, width = self.shape
        return numbers % (height * width) * channels + numbers // (height * width)


class HeadReader:
    """Steps by the tensors that they give. sources : of the encoder's graph, by tensor"""

    def __init__(self, graph: Graph, sources: Mapping[str, Source]) -> None:
        self._graph = graph
        self._sources = sources
        self.steps: list[dict[str, Any]] = []
        self.made: dict[str, tuple[int, Shape]] = {}  # step, shape; [N, W] or [W]
        self._turned: set[str] = set()  # of these, those that a step gives in another order

    def result(self, name: str) -> tuple[dict[str, Any], Shape]:
        """What gives the encoder's output ``name``. Raises ``Unlike``."""
        base, numbers = self._trace(name)
        require(base not in self._sources, f"{name} is a map")
        return {"step": self.made[base][0], "index": _index(numbers)}, numbers.shape[1:]

    def tensors(self) -> dict[str, tuple[int, Shape]]:
        """The graph's tensors that steps give as they are."""
        return {name: made for name, made in self.made.items() if name not in self._turned}

    def forget(self, count: int) -> None:
        """Drop steps beyond the first ``count``, of an output that was not read to its end."""
        del self.steps[count:]
        self.made = {name: made for name, made in self.made.items() if made[0] < count}

    # ---- steps -------------------------------------------------------------------------------

    def _rows(self, name: str) -> tuple[int, Shape]:
        if name not in self.made:
            self.made[name] = self._make(name)
        return self.made[name]

    def _make(self, name: str) -> tuple[int, Shape]:
        node = self._graph.producers.get(name)
        if node is None:
            raise Unlike(f"{name} is an input")
        kind = node.op_type
        if kind in MOVES:
            return self._moved(name)
        if kind == "LayerNormalization":
            found = self._graph.norm(name)
            at, shape = self._rows(found.source)
            norm = found.what
            return self._add("norm", shape, [at], weight=norm.weight, bias=norm.bias, eps=norm.eps)
        if kind == "Concat":
            return self._concat(node)
        if kind == "ReduceMean":
            return self._mean(node)
        if kind == "Add":
            return self._sum(name, node)
        if kind in ACTIVATIONS:
            found = self._graph.activation(name)
            return self._product(found.source, [], found.what)
        return self._product(name, [], None)

    def _add(self, kind: str, shape: Shape, sources: list[int], **more: Any) -> tuple[int, Shape]:
        rows, width = (1, *shape)[-2:]
        self.steps.append({"kind": kind, "rows": rows, "width": width, "from": sources, **more})
        return len(self.steps) - 1, shape

    def _product(self, name: str, added: list[int], activation: str | None) -> tuple[int, Shape]:
        found = self._graph.linear(name)
        at, shape = self._rows(found.source)
        linear = found.what
        require(linear.weight.shape[1] == shape[-1], f"{name} multiplies another side")
        out = (*shape[:-1], linear.weight.shape[0])
        return self._add(
            "product",
            out,
            [at, *added],
            weight=linear.weight,
            bias=linear.bias,
            activation=activation or "none",
        )

    def _sum(self, name: str, node: Any) -> tuple[int, Shape]:
        one, other = node.input
        for constant, rest in ((one, other), (other, one)):
            table = self._graph.constant(constant)
            if table is None:
                continue
            if table.ndim == 1 and self._graph.is_linear(name):
                return self._product(name, [], None)
            require(table.ndim > 0, f"{name} adds one number to all")
            at, shape = self._rows(rest)
            if table.reshape(-1, table.shape[-1]).shape != (1, *shape)[-2:]:
                raise Unlike(f"{name} adds a constant of another size")
            values = np.ascontiguousarray(table, np.float32).reshape(-1, table.shape[-1])
            return self._add("table", shape, [at], weight=values)
        for linear, rest in ((other, one), (one, other)):
            if self._graph.is_linear(linear) and linear not in self.made:
                at, shape = self._rows(rest)
                made = self._product(linear, [at], None)
                require(made[1] == shape, f"{name} adds matrices of two sizes")
                return made
        raise Unlike(f"{name} is a sum without a product")

    def _concat(self, node: Any) -> tuple[int, Shape]:
        require(attributes(node).get("axis") == 1, f"{node.output[0]} is not joined by rows")
        parts = [self._rows(name) for name in node.input]
        widths = {shape[-1] for _, shape in parts}
        require(len(widths) == 1 and all(len(s) == 2 for _, s in parts), "rows of two lengths")
        rows = sum(shape[0] for _, shape in parts)
        return self._add("concat", (rows, widths.pop()), [at for at, _ in parts])

    def _mean(self, node: Any) -> tuple[int, Shape]:
        settings = attributes(node)
        axes = settings.get("axes")
        if axes is None and len(node.input) > 1:
            constant = self._graph.constant(node.input[1])
            axes = None if constant is None else constant.reshape(-1).tolist()
        at, shape = self._rows(node.input[0])
        fits = axes == [1] and settings.get("keepdims", 1) == 0 and len(shape) == 2
        require(fits, f"{node.output[0]} is no mean of rows")
        return self._add("mean", shape[1:], [at])

    def _moved(self, name: str) -> tuple[int, Shape]:
        base, numbers = self._trace(name)
        shape = numbers.shape[1:]
        require(len(shape) in (1, 2), f"{name} is no matrix")
        source = self._sources.get(base)
        if source is not None:
            index = _index(source.places_first(numbers))
            return self._add("map", shape, [source.number], index=index)
        index = _index(numbers)
        if index is None:
            return self.made[base][0], shape
        return self._add("gather", shape, [self.made[base][0]], index=index)

    # ---- what only moves values --------------------------------------------------------------

    def _trace(self, name: str) -> tuple[str, Numbers]:
        """The tensor whose values ``name`` holds, and the number of each in it: [1, ...]."""
        node = self._graph.producers.get(name)
        if name in self._sources or node is None or node.op_type not in MOVES:
            return name, self._start(name)
        base, numbers = self._trace(node.input[0])
        return base, self._move(node, name, numbers)

    def _start(self, name: str) -> Numbers:
        """The numbers of a tensor's own values, in the order in which they lie in memory."""
        if name in self._sources:
            return _numbers(self._sources[name].shape)
        node = self._graph.producers.get(name)
        if node is None or node.op_type != "MatMul" or self._graph.is_linear(name):
            return _numbers(self._rows(name)[1])
        return self._attention(name, node)

    def _move(self, node: Any, name: str, numbers: Numbers) -> Numbers:
        settings = attributes(node)
        if node.op_type == "Transpose":
            turned: Numbers = np.transpose(numbers, settings.get("perm"))
            return turned
        if node.op_type == "Split":
            axis = int(settings.get("axis", 0))
            if len(node.input) > 1:
                sizes = self._graph.constant(node.input[1])
                require(sizes is not None, f"{name} is split by what runs")
                assert sizes is not None
                ends: Any = np.cumsum(sizes)[:-1].tolist()
            else:
                ends = len(node.output)
                require(numbers.shape[axis] % ends == 0, f"{name} is split unevenly")
            return np.split(numbers, ends, axis)[list(node.output).index(name)]
        if node.op_type == "Identity":
            return numbers
        if node.op_type == "Flatten":
            return numbers.reshape(1, -1)
        given = self._graph.constant(node.input[1]) if len(node.input) > 1 else None
        if given is None:
            raise Unlike(f"{name} has a shape that is not constant")
        sides = [int(side) for side in given.reshape(-1)]
        if node.op_type == "Unsqueeze":
            rank = numbers.ndim + len(sides)
            return np.expand_dims(numbers, tuple(side % rank for side in sides))
        if node.op_type == "Squeeze":
            return np.squeeze(numbers, tuple(sides))
        shape = [numbers.shape[i] if side == 0 else side for i, side in enumerate(sides)]
        try:
            moved: Numbers = numbers.reshape(tuple(shape))
        except ValueError:
            raise Unlike(f"{name} is reshaped with its batch") from None
        require(len(moved) == 1, f"{name} is reshaped with its batch")
        return moved

    # ---- attention ---------------------------------------------------------------------------

    def _attention(self, name: str, node: Any) -> Numbers:
        """softmax(q k^T * scale) v of one matrix [N, 3 * W] that holds all three.

        The tensor is [heads, N, d], the kernel writes [N, heads * d].
        """
        graph = self._graph
        softmax = graph.node(node.input[0], "Softmax")
        require(attributes(softmax).get("axis", -1) in (-1, 3), "the softmax is of another side")
        scores, scale = softmax.input[0], 1.0
        while graph.is_from(scores, "Mul", "Div"):
            scaled = graph.node(scores, "Mul", "Div")
            factor = graph.scalar(scaled.input[1])
            if factor is None:
                raise Unlike(f"{scores} is scaled by what runs")
            scale = scale * factor if scaled.op_type == "Mul" else scale / factor
            scores = scaled.input[0]
        product = graph.node(scores, "MatMul")
        (base, query), (key_base, key), (value_base, value) = (
            self._trace(side) for side in (product.input[0], product.input[1], node.input[1])
        )
        require(base == key_base == value_base, "queries, keys and values have no common product")
        require(base in self.made and query.ndim == 4, "attention is not over rows")
        at, shape = self.made[base]
        heads, rows, depth = (int(side) for side in query.shape[1:])
        width = heads * depth
        require(shape == (rows, 3 * width), "queries, keys and values are of other sizes")
        parts = _numbers((rows, 3, heads, depth)).transpose(2, 0, 3, 1, 4)
        same = np.array_equal(query, parts[0]) and np.array_equal(value, parts[2])
        require(same, "queries or values are in another order")
        require(np.array_equal(key, parts[1].swapaxes(2, 3)), "keys are in another order")
        if name not in self.made:
            self.made[name] = self._add("attention", (rows, width), [at], heads=heads, scale=scale)
        self._turned.add(name)
        order: Numbers = _numbers((rows, heads, depth)).swapaxes(1, 2)
        return order


def _numbers(shape: Shape) -> Numbers:
    return np.arange(int(np.prod(shape))).reshape(1, *shape)


def _index(numbers: Numbers) -> npt.NDArray[np.int32] | None:
    """None where every value stays at its place."""
    flat = numbers.reshape(-1)
    if np.array_equal(flat, np.arange(flat.size)):
        return None
    return np.ascontiguousarray(flat, np.int32)
