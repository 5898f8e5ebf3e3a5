"""Quantisation of the two graphs for ONNX Runtime on a CPU.

Static, for the encoder: QDQ (Jacob et al. 2018), uint8 activations, int8 weights per channel, int32
bias, calibrated on real photographs; ONNX Runtime fuses it into integer convolutions. Weights
alone, for either graph: stored as int8 with one scale a channel, and widened when the session is
made, so that everything is computed in float32. Large decoders compute products in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecap.export.integer_matmuls import dynamic_int8
from edgecap.export.sensitivity import PROBES, choose_layers, measure_layers
from edgecap.export.static_quantization import CalibrationOptions, StaticQuantizer
from edgecap.runtime.manifest import Quantisation

if TYPE_CHECKING:
    import onnx

STATIC = "int8 static QDQ, outer convolutions stored as int8 and run in float32"
MEASURED = "int8 static QDQ of the layers that stand it, the others stored as int8, run in float32"
DYNAMIC = "int8, activations scaled at run time"
# Above it a step is bound by reading its weights. Below, a step in integers is faster, too (0.64 ms
# instead of 1.13 for the default model), but its rows share one scale for their activations: what
# a picture says would depend on the others of its batch.
LARGE_DECODER = 64 << 20
WEIGHTS = "weights stored as int8 with a scale a channel, computed in float32"
SMALLEST = 4096  # weights with fewer elements stay float: nothing to gain


@dataclass(frozen=True)
class QuantizeOptions:
    """What is quantised how. ``static``: the encoder's activations too; without it, weights alone.

    The first and last convolutions compute in float: with all 42 of the default encoder's frozen
    half in int8 the error is 1.9 % of its features' energy, with the inner 16 alone 0.6 %, at about
    the same speed. Their weights are stored as int8 like all others.
    """

    static: bool = False
    method: str = "Percentile"  # ONNX Runtime's calibration
    percentile: float = 99.99
    float_first: int = 2  # convolutions from the picture on
    float_last: int = 40  # convolutions up to the last feature map
    matmuls: bool = False  # also the linear layers of the encoder
    # Above 0: not the blocks above, but whichever layers of the encoder add up to so little error
    # when each is quantised alone.
    budget: float = 0.0


def quantize_encoder(
    proto: onnx.ModelProto, images: Sequence[npt.NDArray[np.uint8]], options: QuantizeOptions
) -> onnx.ModelProto:
    """Static QDQ of convolutions (and linear layers). images: uint8 [S, S, 3] RGB, one each."""
    if options.budget > 0:
        chosen = CalibrationOptions(options.method.lower(), options.percentile)
        quantizer = StaticQuantizer(proto, images, chosen)
        layers = measure_layers(quantizer, images[:PROBES], threads=2)
        return quantizer.quantize(choose_layers(layers, options.budget))
    types = ("Conv", *(("MatMul", "Gemm") if options.matmuls else ()))
    calibration = CalibrationOptions(options.method.lower(), options.percentile)
    quantizer = StaticQuantizer(proto, images, calibration, types)
    convolutions = [node.name for node in quantizer.model.graph.node if node.op_type == "Conv"]
    inner = convolutions[options.float_first : max(0, len(convolutions) - options.float_last)]
    outer = set(convolutions) - set(inner)
    return quantizer.quantize([name for name in quantizer.layers if name not in outer])


def quantize_as_tuned(
    proto: onnx.ModelProto, images: Sequence[npt.NDArray[np.uint8]], options: QuantizeOptions
) -> onnx.ModelProto:
    """An encoder as a fine-tuned checkpoint says: static where it was, weights stored as int8."""
    return store_weights_int8(quantize_encoder(proto, images, options) if options.static else proto)


def quantize_decoder(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """A decoder in int8 and what the manifest says of it."""
    if proto.ByteSize() > LARGE_DECODER:
        return store_weights_int8(dynamic_int8(proto)), DYNAMIC
    return store_weights_int8(proto), WEIGHTS


def quantisation_of(options: QuantizeOptions, decoder: str) -> Quantisation:
    """What the manifest says; ``decoder`` as ``quantize_decoder`` gave it."""
    encoder = MEASURED if options.budget > 0 else STATIC
    return Quantisation(encoder=encoder if options.static else WEIGHTS, decoder=decoder)


def store_weights_int8(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Replace large float matrices and kernels by int8 values and one scale a channel.

    The graph widens them by Cast and Mul, which every runtime folds into a constant when it loads
    the graph: a DequantizeLinear would be kept for integer kernels and run again at every step.
    """
    import onnx
    from onnx import helper, numpy_helper

    out = onnx.ModelProto()
    out.CopyFrom(proto)
    rows = {n.input[0] for n in proto.graph.node if n.op_type == "Gather"}
    rows |= {n.input[1] for n in proto.graph.node if n.op_type == "Gemm" and _transposed(n)}
    kept, nodes = [], []
    for item in out.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.dtype != np.float32 or values.ndim not in (2, 4) or values.size < SMALLEST:
            kept.append(item)
            continue
        # An embedding is looked up by row, as a transposed weight has its channels; others have
        # them in columns.
        axis = (1, 2, 3) if values.ndim == 4 else (1,) if item.name in rows else (0,)
        integers, scale = _symmetric_int8(values, axis)
        name = item.name
        kept.append(numpy_helper.from_array(integers, f"{name}.int8"))
        kept.append(numpy_helper.from_array(scale, f"{name}.scale"))
        nodes.append(helper.make_node("Cast", [f"{name}.int8"], [f"{name}.wide"], to=1))
        nodes.append(helper.make_node("Mul", [f"{name}.wide", f"{name}.scale"], [name]))
    for number, node in enumerate(nodes):
        node.name = f"widen_{number}"
    del out.graph.initializer[:]
    out.graph.initializer.extend(kept)
    body = list(out.graph.node)
    del out.graph.node[:]
    out.graph.node.extend([*nodes, *body])
    return out


def _transposed(node: onnx.NodeProto) -> bool:
    return any(a.name == "transB" and a.i == 1 for a in node.attribute)


def _symmetric_int8(
    values: npt.NDArray[np.float32], axis: tuple[int, ...]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round to -127..127 with one scale for each slice along the other axes, ties to even."""
    scale = np.abs(values).max(axis=axis, keepdims=True) / 127
    scale = np.where(scale == 0, 1, scale).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale
