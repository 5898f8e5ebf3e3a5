"""A decoder's ONNX graph read backwards: constants folded, products, norms and activations known.

Exporters drop the names of weights and share equal ones, so that a weight is known by where it
stands. What does not have the shape that is asked for raises ``Unlike``: kernels that compute
something else than the graph must never run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.engines.cuda_spec import Floats, Linear, Norm
from edgecap.runtime.engines.onnx_weights import attributes, fold, to_array, widen

if TYPE_CHECKING:
    import onnx

SAME_VALUES = ("Reshape", "Unsqueeze", "Squeeze", "Identity", "Flatten")
FOLDABLE = ("Cast", "Mul", "Transpose", "Reshape", "Identity", "DequantizeLinear", "Unsqueeze")
# Block weights and integer kernels in other forms than ``float_products`` knows.
INTEGER = ("MatMulInteger", "DynamicQuantizeLinear", "MatMulNBits", "QLinearMatMul")


class Unlike(Exception):
    """The graph is none that the kernels compute; its text says what differs."""


@dataclass(frozen=True)
class Found:
    """An operation with one running input: its tensor's name, and what was applied to it."""

    source: str
    what: Any


class Graph:
    """Nodes of a decoder by what they give."""

    def __init__(self, model: onnx.ModelProto) -> None:
        # of the products that were in integers: name -> integers, their scale and zero point
        self._integers: dict[str, tuple[str, str, str]] = {}
        self.nodes = float_products(list(model.graph.node), self._integers)
        for node in self.nodes:
            if node.op_type in INTEGER:
                raise Unlike(f"its products are {node.op_type}")
        self.producers = {name: node for node in self.nodes for name in node.output}
        self.inputs = {value.name: value for value in model.graph.input}
        self.outputs = [value.name for value in model.graph.output]
        self._stored = {item.name: item for item in model.graph.initializer}
        self._constants: dict[str, npt.NDArray[Any] | None] = {}

    # ---- constants ---------------------------------------------------------------------------

    def constant(self, name: str) -> npt.NDArray[Any] | None:
        """The value of a tensor that depends on weights alone; None for all others."""
        if name not in self._constants:
            self._constants[name] = self._fold(name)
        return self._constants[name]

    def _fold(self, name: str) -> npt.NDArray[Any] | None:
        if name in self._stored:
            return to_array(self._stored[name])
        if name in self._integers:
            return self._widened(*self._integers[name])
        node = self.producers.get(name)
        if node is None or node.op_type not in (*FOLDABLE, "Constant"):
            return None
        values: dict[str, npt.NDArray[Any]] = {}
        for given in filter(None, node.input):
            value = self.constant(given)
            if value is None:
                return None
            values[given] = value
        return fold(node, values)

    def _widened(self, integers: str, scale: str, zero: str) -> npt.NDArray[Any] | None:
        """(integers - zero) * scale, of a tensor or of each column."""
        whole, factors = self.constant(integers), self.constant(scale)
        shift = self.constant(zero) if zero else None
        if whole is None or factors is None or (zero and shift is None):
            return None
        sizes = {part.size for part in (factors, shift) if part is not None}
        if whole.ndim != 2 or not (sizes <= {1} or sizes == {whole.shape[1]}):
            raise Unlike(f"{integers} has scales of other sides than its columns")
        return widen(whole, factors.reshape(-1), None if shift is None else shift.reshape(-1), 1)

    def floats(self, name: str, rank: int) -> Floats:
        value = self.constant(name)
        if value is None or value.ndim != rank:
            raise Unlike(f"{name} is no constant of {rank} sides")
        return np.ascontiguousarray(value, np.float32)

    def scalar(self, name: str) -> float | None:
        value = self.constant(name)
        return None if value is None or value.size != 1 else float(value.reshape(-1)[0])

    # ---- steps back --------------------------------------------------------------------------

    def back(self, name: str) -> str:
        """The tensor whose values ``name`` holds in another shape or float type."""
        while True:
            node = self.producers.get(name)
            if node is None or not (node.op_type in SAME_VALUES or _to_float(node)):
                return name
            name = node.input[0]

    def node(self, name: str, *kinds: str) -> onnx.NodeProto:
        """What gives ``name``, which must be one of ``kinds``."""
        node: onnx.NodeProto | None = self.producers.get(self.back(name))
        if node is None or node.op_type not in kinds:
            given = "an input" if node is None else node.op_type
            raise Unlike(f"{name} comes from {given}, not from {' or '.join(kinds)}")
        return node

    def is_from(self, name: str, *kinds: str) -> bool:
        node = self.producers.get(self.back(name))
        return node is not None and node.op_type in kinds

    def same(self, a: str, b: str) -> bool:
        return self.back(a) == self.back(b)

    def linear(self, name: str) -> Found:
        """A product with a constant matrix and its bias."""
        node = self.node(name, "Add", "MatMul", "Gemm")
        bias = None
        if node.op_type == "Add":
            for at in (0, 1):
                value = self.constant(node.input[at])
                if value is not None and value.ndim == 1:
                    bias = self.floats(node.input[at], 1)
                    node = self.node(node.input[1 - at], "MatMul")
                    break
            else:
                raise Unlike(f"{name} is a sum without a bias")
        if node.op_type == "MatMul":
            return Found(node.input[0], Linear(_rows(self.floats(node.input[1], 2).T), bias))
        settings = attributes(node)
        if settings.get("transA", 0) or settings.get("alpha", 1) != 1:
            raise Unlike(f"{name} is a Gemm that transposes or scales")
        weight = self.floats(node.input[1], 2)
        if len(node.input) > 2:
            bias = self.floats(node.input[2], 1)
            if settings.get("beta", 1) != 1:
                raise Unlike(f"{name} is a Gemm that scales its bias")
        turned = weight if settings.get("transB", 0) else _rows(weight.T)
        return Found(node.input[0], Linear(turned, bias))

    def is_linear(self, name: str) -> bool:
        try:
            self.linear(name)
        except Unlike:
            return False
        return True

    def norm(self, name: str) -> Found:
        node = self.node(name, "LayerNormalization")
        settings = attributes(node)
        if settings.get("axis", -1) not in (-1,):
            raise Unlike(f"{name} is no norm of the last side")
        weight = self.floats(node.input[1], 1)
        bias = self.floats(node.input[2], 1) if len(node.input) > 2 else np.zeros_like(weight)
        return Found(node.input[0], Norm(weight, bias, float(settings.get("epsilon", 1e-5))))

    def operands(self, name: str, kind: str) -> tuple[str, str]:
        node = self.node(name, kind)
        return node.input[0], node.input[1]

    # ---- activations -------------------------------------------------------------------------

    def activation(self, name: str) -> Found:
        """relu, gelu by erf or by tanh, or tanh; the source is what it was applied to."""
        node = self.node(name, "Relu", "Tanh", "Gelu", "Mul")
        if node.op_type in ("Relu", "Tanh"):
            return Found(node.input[0], node.op_type.lower())
        if node.op_type == "Gelu":
            kind = attributes(node).get("approximate", b"none")
            return Found(node.input[0], "gelu_tanh" if kind == b"tanh" else "gelu")
        source, gate = self._gelu_parts(name)
        for kind, holds in (("gelu", self._is_erf), ("gelu_tanh", self._is_tanh)):
            if holds(gate, source):
                return Found(source, kind)
        raise Unlike(f"{name} is an activation that the kernels do not have")

    def _gelu_parts(self, name: str) -> tuple[str, str]:
        """x and g of x * 0.5 * (1 + g), however the three factors are grouped."""
        factors = self._factors(name)
        halves = [f for f in factors if _close(self.scalar(f), 0.5)]
        sums = [f for f in factors if self.is_from(f, "Add") and self._one_plus(f) is not None]
        rest = [f for f in factors if f not in halves and f not in sums]
        if len(factors) != 3 or len(halves) != 1 or len(sums) != 1 or len(rest) != 1:
            raise Unlike(f"{name} is an activation that the kernels do not have")
        gate = self._one_plus(sums[0])
        assert gate is not None
        return rest[0], gate

    def _factors(self, name: str) -> list[str]:
        """The factors of a product that has at most one product among them."""
        a, b = self.operands(name, "Mul")
        for one, other in ((a, b), (b, a)):
            if self.is_from(one, "Mul"):
                return [other, *self.operands(one, "Mul")]
        return [a, b]

    def _one_plus(self, name: str) -> str | None:
        a, b = self.operands(name, "Add")
        for one, other in ((a, b), (b, a)):
            if _close(self.scalar(one), 1.0):
                return other
        return None

    def _is_erf(self, gate: str, x: str) -> bool:
        if not self.is_from(gate, "Erf"):
            return False
        inner = self.node(self.node(gate, "Erf").input[0], "Div", "Mul")
        wanted = math.sqrt(2) if inner.op_type == "Div" else math.sqrt(0.5)
        return self.same(inner.input[0], x) and _close(self.scalar(inner.input[1]), wanted)

    def _is_tanh(self, gate: str, x: str) -> bool:
        """tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))"""
        if not self.is_from(gate, "Tanh"):
            return False
        factors = self.operands(self.node(gate, "Tanh").input[0], "Mul")
        if not any(_close(self.scalar(f), math.sqrt(2 / math.pi)) for f in factors):
            return False
        total = next(f for f in factors if self.scalar(f) is None)
        parts = self.operands(total, "Add")
        cubes = [p for p in parts if not self.same(p, x)]
        if len(cubes) != 1 or not self.is_from(cubes[0], "Mul"):
            return False
        sides = self.operands(cubes[0], "Mul")
        if not any(_close(self.scalar(side), 0.044715) for side in sides):
            return False
        power = self.node(next(s for s in sides if self.scalar(s) is None), "Pow")
        return self.same(power.input[0], x) and _close(self.scalar(power.input[1]), 3.0)

    # ---- regions -----------------------------------------------------------------------------

    def region(self, name: str, stop: Iterable[str]) -> tuple[list[onnx.NodeProto], set[str]]:
        """All nodes that ``name`` depends on behind the tensors ``stop``, and the tensors of
        ``stop`` and graph inputs that they start from. Shapes and constants are left out."""
        ends, seen = set(stop), set()
        nodes: list[onnx.NodeProto] = []
        leaves: set[str] = set()
        open_ = [name]
        while open_:
            tensor = open_.pop()
            if tensor in seen or not tensor or self.constant(tensor) is not None:
                continue
            seen.add(tensor)
            node = self.producers.get(tensor)
            if tensor in ends or node is None:
                leaves.add(tensor)
                continue
            if node.op_type == "Shape":
                continue
            nodes.append(node)
            # The second input of a Reshape is a shape.
            open_ += node.input[:1] if node.op_type in ("Reshape", "Expand") else node.input
        return nodes, leaves


def float_products(
    nodes: list[onnx.NodeProto], weights: dict[str, tuple[str, str, str]]
) -> list[onnx.NodeProto]:
    """The nodes with a MatMul for each product that ONNX Runtime's dynamic quantiser wrote:
    q, s, z = DynamicQuantizeLinear(x); Cast(MatMulInteger(q, w, z, w_zero)) * (s * w_scale).

    weights : gets (w, w_scale, w_zero) by the name of each MatMul's matrix
    """
    makers = {name: node for node in nodes for name in node.output}
    products: dict[int, onnx.NodeProto] = {}
    absorbed: set[str] = set()  # what the patterns' first two nodes give

    def maker(name: str, kind: str) -> onnx.NodeProto | None:
        node = makers.get(name)
        return node if node is not None and node.op_type == kind else None

    for node in nodes:
        for wide, scales in _orders(node) if node.op_type == "Mul" else ():
            cast, factors = maker(wide, "Cast"), maker(scales, "Mul")
            product = maker(cast.input[0], "MatMulInteger") if cast is not None else None
            rounded = maker(product.input[0], "DynamicQuantizeLinear") if product else None
            if product is None or factors is None or rounded is None:
                continue
            own = [other for scale, other in _orders(factors) if scale == rounded.output[1]]
            if not own or list(product.input[:3:2]) != list(rounded.output[::2]):
                continue
            parts = product.input[1], own[0], product.input[3] if len(product.input) > 3 else ""
            made = type(node)(op_type="MatMul", output=[node.output[0]])
            made.input.extend([rounded.input[0], f"{parts[0]} * {parts[1]}"])
            weights[made.input[1]] = parts
            products[id(node)] = made
            absorbed |= {product.output[0], rounded.output[0]}
    return [products.get(id(n), n) for n in nodes if n.output[0] not in absorbed]


def _orders(node: onnx.NodeProto) -> tuple[tuple[str, str], tuple[str, str]]:
    a, b = node.input
    return (a, b), (b, a)


def require(holds: bool, text: str) -> None:
    """Raises Unlike unless it holds."""
    if not holds:
        raise Unlike(text)


def tied(head: Linear, words: Floats) -> Linear:
    """The head with the words' own array where it is the same matrix, so that it is kept once."""
    if head.weight.shape == words.shape and np.array_equal(head.weight, words):
        return Linear(words, head.bias)
    return head


def _to_float(node: onnx.NodeProto) -> bool:
    """A Cast between float types; TensorProto's FLOAT is 1, FLOAT16 is 10."""
    return node.op_type == "Cast" and attributes(node).get("to") in (1, 10)


def _rows(matrix: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(matrix, np.float32)


def _close(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) <= 1e-3 * abs(wanted)
