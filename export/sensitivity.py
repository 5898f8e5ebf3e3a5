"""Which layers of an encoder can compute in integers: measured, one layer at a time.

Each layer is quantised alone and its error is what that does to the graph's outputs on real
photographs. Errors of single layers add up nearly (they are small and independent), so the layers
that cost most for the work they save are left in float until the sum is within a budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.export.static_quantization import StaticQuantizer
from edgecap.runtime.engines.onnx import open_session
from edgecap.training.progress import track

if TYPE_CHECKING:
    import onnx

PROBES = 16  # photographs that a layer's error is measured on
Outputs = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class LayerError:
    """name : of the node; op : its operator
    error : energy of the change of the outputs over the energy of the outputs, this layer alone
    work : multiply-accumulates a picture
    """

    name: str
    op: str
    error: float
    work: int


def measure_layers(
    quantizer: StaticQuantizer, pictures: Sequence[npt.NDArray[np.uint8]], threads: int
) -> list[LayerError]:
    """The error of every layer alone, in the graph's order. pictures: uint8 [S, S, 3] RGB."""
    right = run(quantizer.model, pictures, threads)
    nodes = {node.name: node for node in quantizer.model.graph.node}
    work = _work(quantizer.model)
    found = []
    for name in track(quantizer.layers, "layers"):
        given = run(quantizer.quantize([name]), pictures, threads)
        found.append(LayerError(name, nodes[name].op_type, error(right, given), work[name]))
    return found


def choose_layers(layers: Sequence[LayerError], budget: float) -> list[str]:
    """Names of those that compute in integers: their errors sum to at most ``budget``.

    Dropped first is what costs most error for the work that it would save.
    """
    left = sorted(layers, key=lambda one: one.error / max(1, one.work))
    total = sum(one.error for one in left)
    while left and total > budget:
        total -= left.pop().error
    kept = {one.name for one in left}
    return [one.name for one in layers if one.name in kept]


def run(
    proto: onnx.ModelProto, pictures: Sequence[npt.NDArray[np.uint8]], threads: int
) -> list[Outputs]:
    """What the graph gives for each picture, one at a time."""
    session = open_session(proto.SerializeToString(), "encoder.onnx", threads)
    return [session.run(None, {"image": picture[None]}) for picture in pictures]


def error(right: Sequence[Outputs], given: Sequence[Outputs]) -> float:
    """Energy of the difference over the energy, summed over pictures, mean over outputs."""
    shares = []
    for a, b in zip(zip(*right, strict=True), zip(*given, strict=True), strict=True):
        x, y = np.stack(a).astype(np.float64), np.stack(b).astype(np.float64)
        energy = float(np.square(x).sum())
        if energy > 0:
            shares.append(float(np.square(x - y).sum()) / energy)
    return float(np.mean(shares)) if shares else 0.0


def _work(proto: onnx.ModelProto) -> dict[str, int]:
    """Multiply-accumulates a picture of every node with constant weights."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    sizes = {item.name: list(item.dims) for item in proto.graph.initializer}
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    work = {}
    for node in proto.graph.node:
        weight = sizes.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None:
            continue
        # Every weight is used once for each place of the output, whatever the batch.
        places = shapes.get(node.output[0], [])[1:]
        places = places[1:] if node.op_type == "Conv" else places[:-1]
        work[node.name] = math.prod(weight) * math.prod(max(1, side) for side in places)
    return work
