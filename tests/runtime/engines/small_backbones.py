"""Small convolutional encoders as ONNX graphs, and what the CPU kernels should make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecap.runtime.engines.encoder_chain import Convolution

SIDE = 30
HEAD = 12  # width of what follows the convolutions


class Builder:
    """Nodes and weights of a graph, added one after the other."""

    def __init__(self, seed: int, quantised: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.quantised = quantised
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, value: Any) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, inputs: list[str], **settings: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **settings))
        return name

    def rounded(self, x: str, low: float, high: float) -> str:
        """x through QuantizeLinear and DequantizeLinear, where the graph is quantised."""
        if not self.quantised:
            return x
        scale = np.float32((high - low) / 255)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
        parameters = [self.weight(f"{x}_scale", scale), self.weight(f"{x}_zero", zero)]
        whole = self.node("QuantizeLinear", [x, *parameters])
        return self.node("DequantizeLinear", [whole, *parameters])

    def convolution(
        self, x: str, inputs: int, outputs: int, side: int, relu: bool = False, **settings: Any
    ) -> str:
        alone = settings.get("group", 1) > 1
        taps = side * side * (1 if alone else inputs)
        weight = self.rng.normal(size=(outputs, 1 if alone else inputs, side, side))
        weight = (weight / np.sqrt(taps)).astype(np.float32)
        at = len(self.nodes)
        if not alone and at % 2 == 0:  # as the exporter stores them: integers and scales
            scale = np.abs(weight).max((1, 2, 3)) / np.float32(127)
            whole = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
            parts = [self.weight(f"w{at}", whole), self.weight(f"s{at}", scale)]
            name = self.node(
                "DequantizeLinear", [*parts, self.weight(f"z{at}", np.zeros_like(scale, np.int8))],
                axis=0,
            )  # fmt: skip
        else:
            name = self.weight(f"w{at}", weight)
        bias = self.weight(f"b{at}", self.rng.normal(0, 0.1, outputs).astype(np.float32))
        made = self.node("Conv", [x, name, bias], **settings)
        made = self.rounded(made, -4, 4)
        if not relu:
            return made
        if at % 3 == 0:
            low, high = (self.weight(f"{n}{at}", np.float32(v)) for n, v in (("l", 0), ("h", 1)))
            return self.rounded(self.node("Clip", [made, low, high]), 0, 1)
        return self.rounded(self.node("Relu", [made]), 0, 4)

    def model(self, **outputs: int) -> Any:
        """outputs : their ranks"""
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", SIDE, SIDE, 3])
        given = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", *[None] * (rank - 1)])
            for name, rank in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "encoder", [image], given, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def backbone(seed: int, quantised: bool) -> tuple[Builder, str]:
    """Nine convolutions of all kinds that the kernels know, and the last map: [B, 40, 4, 4]."""
    b = Builder(seed, quantised)
    x = b.node("Transpose", ["image"], perm=[0, 3, 1, 2])
    x = b.node("Cast", [x], to=TensorProto.FLOAT)
    deviation = np.float32([60, 65, 70]).reshape(1, 3, 1, 1)
    x = b.node("Sub", [x, b.weight("mean", np.float32([120, 115, 105]).reshape(1, 3, 1, 1))])
    x = b.node("Div", [x, b.weight("deviation", deviation)])
    x = b.convolution(x, 3, 20, 3, relu=True, strides=[2, 2], pads=[0, 0, 1, 1])
    first = b.convolution(x, 20, 19, 3, pads=[1, 1, 1, 1])
    x = b.convolution(first, 19, 70, 1, relu=True)
    x = b.convolution(x, 70, 70, 3, relu=True, group=70, pads=[1, 1, 1, 1])
    x = b.convolution(x, 70, 19, 1)
    x = b.rounded(b.node("Add", [first, x]), -6, 6)
    x = b.convolution(x, 19, 48, 3, relu=True, strides=[2, 2], pads=[1, 1, 1, 1])
    x = b.convolution(x, 48, 48, 5, group=48, strides=[2, 2], pads=[2, 2, 2, 2])
    second = x
    x = b.convolution(x, 48, 48, 1)
    x = b.node("Add", [x, second])
    return b, b.convolution(x, 48, 40, 1, relu=True)


def with_head(seed: int, quantised: bool) -> Any:
    """A backbone, its places with boxes of the picture, one layer of attention, and a mean."""
    b, last = backbone(seed, quantised)
    rows = b.node("Reshape", [last, b.weight("shape", np.int64([0, 40, -1]))])
    rows = b.node("Transpose", [rows], perm=[0, 2, 1])  # [B, 16, 40]
    b.nodes.append(
        helper.make_node("ReduceMean", [rows, b.weight("axis", np.int64([1]))], ["pooled"],
                         keepdims=0)
    )  # fmt: skip
    # Neither a number that is added to all nor a Sigmoid is a step of the kernels.
    moved = b.node("Add", ["pooled", b.weight("one", np.float32(1))])
    b.nodes.append(helper.make_node("Sigmoid", [moved], ["features"]))
    b.nodes.append(helper.make_node("Add", ["pooled", "one"], ["novelty"]))

    def linear(x: str, inputs: int, outputs: int) -> str:
        weight = b.rng.normal(size=(inputs, outputs)).astype(np.float32) / np.sqrt(inputs)
        at = len(b.nodes)
        x = b.node("MatMul", [x, b.weight(f"m{at}", weight.astype(np.float32))])
        return b.node("Add", [x, b.weight(f"mb{at}", b.rng.normal(size=outputs).astype("f"))])

    def norm(x: str) -> str:
        at = len(b.nodes)
        parts = [b.weight(f"n{at}", b.rng.normal(1, 0.1, HEAD).astype("f"))]
        parts.append(b.weight(f"nb{at}", b.rng.normal(0, 0.1, HEAD).astype("f")))
        return b.node("LayerNormalization", [x, *parts], axis=-1, epsilon=1e-5)

    x = linear(rows, 40, HEAD)
    whole = b.node("Cast", [b.node("Transpose", ["image"], perm=[0, 3, 1, 2])], to=1)
    boxes = b.node("AveragePool", [whole], kernel_shape=[5, 5], strides=[5, 5])  # 6 x 6
    boxes = b.node("Transpose", [boxes], perm=[0, 2, 3, 1])
    boxes = b.node("Div", [boxes, b.weight("bright", np.float32(127.5))])
    boxes = b.node("Reshape", [boxes, b.weight("boxes", np.int64([-1, 3, 2, 3, 2, 3]))])
    boxes = b.node("Transpose", [boxes], perm=[0, 1, 3, 2, 4, 5])
    boxes = b.node("Reshape", [boxes, b.weight("boxes2", np.int64([-1, 9, 12]))])
    weight = b.rng.normal(size=(HEAD, 40)).astype("f") / 6
    whole = b.node(
        "Gemm", ["pooled", b.weight("g", weight), b.weight("gb", weight[:, 0])], transB=1
    )
    whole = b.node("Unsqueeze", [whole, "axis"])
    x = b.node("Concat", [x, linear(boxes, 12, HEAD), whole], axis=1)  # [B, 26, 12]
    x = b.node("Add", [x, b.weight("place", b.rng.normal(size=(26, HEAD)).astype("f"))])
    qkv = linear(norm(x), HEAD, 3 * HEAD)
    names = [f"part_{i}" for i in range(3)]
    b.nodes.append(helper.make_node("Split", [qkv], names, axis=2, num_outputs=3))
    heads = b.weight("heads", np.int64([0, 26, 3, 4]))
    parts = [b.node("Reshape", [name, heads]) for name in names]
    q, k, v = (
        b.node("Transpose", [part], perm=[0, 2, 3, 1] if i == 1 else [0, 2, 1, 3])
        for i, part in enumerate(parts)
    )
    scores = b.node("Mul", [b.node("MatMul", [q, k]), b.weight("root", np.float32(0.5))])
    mixed = b.node("MatMul", [b.node("Softmax", [scores], axis=-1), v])
    mixed = b.node("Transpose", [mixed], perm=[0, 2, 1, 3])
    mixed = b.node("Reshape", [mixed, b.weight("joined", np.int64([0, 26, HEAD]))])
    x = b.node("Add", [x, linear(mixed, HEAD, HEAD)])
    up = b.node("Relu", [linear(norm(x), HEAD, 2 * HEAD)])
    x = norm(b.node("Add", [x, linear(up, 2 * HEAD, HEAD)]))
    keys = b.node("Reshape", [linear(x, HEAD, HEAD), heads])
    b.nodes.append(helper.make_node("Transpose", [keys], ["memory.key.0"], perm=[0, 2, 3, 1]))
    return b.model(**{"memory.key.0": 4, "features": 2, "novelty": 2})


def reference(
    chain: list[Convolution], picture: np.ndarray, scale: np.ndarray, shift: np.ndarray
) -> list[np.ndarray]:
    """Maps [H, W, C] of a chain in numpy, with the integers that the kernels should have."""
    maps: list[np.ndarray] = []
    for c in chain:
        source = picture * scale + shift if c.source < 0 else maps[c.source]
        whole = (0.0, 0) if c.source < 0 else chain[c.source].quantised
        (top, left), (height, width) = c.start, c.kernel
        rows, columns, outputs = c.out
        padded = np.zeros((c.size[0] + 2 * height, c.size[1] + 2 * width, c.size[2]))
        padded[top : top + c.size[0], left : left + c.size[1]] = source
        at = [
            padded[y * c.stride[0] : y * c.stride[0] + height,
                   x * c.stride[1] : x * c.stride[1] + width]
            for y in range(rows) for x in range(columns)
        ]  # fmt: skip
        patches = np.stack(at)
        if c.depthwise:
            sums = np.einsum("pyxc,yxc->pc", patches, c.weight.reshape(height, width, -1))
        else:
            sums = _product(patches.reshape(len(at), -1), c, whole[0] > 0)
        sums = _round(sums + c.bias, c.rounded).reshape(rows, columns, outputs)
        if c.residual >= 0:
            sums = sums + maps[c.residual]
        maps.append(_round(np.clip(sums, *c.bounds), c.quantised))
    return maps


def _product(x: np.ndarray, c: Convolution, in_bytes: bool) -> np.ndarray:
    if not c.whole:
        return x @ c.weight.T.astype(np.float64)
    scales = np.abs(c.weight).max(1) / 127.0
    weight = np.rint(c.weight / scales[:, None]) * scales[:, None]
    if not in_bytes:
        rows = np.abs(x).max(1, keepdims=True) / 127.0
        x = np.rint(x / rows) * rows
    return x @ weight.T


def _round(x: np.ndarray, whole: tuple[float, int]) -> np.ndarray:
    scale, zero = whole
    return (np.clip(np.rint(x / scale) + zero, -128, 127) - zero) * scale if scale else x


def save(model: Any) -> bytes:
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
