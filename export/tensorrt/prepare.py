"""A bundle's two graphs, ready for TensorRT's parser, in one of three precisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecap.export.tensorrt.half import to_half
from edgecap.export.tensorrt.respell import is_quantised, respell
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.errors import EngineError

if TYPE_CHECKING:
    import onnx

# Raised whenever the same bundle gives another graph than before: engines of the old one are then
# built again.
PREPARATION = 1

PRECISIONS = {
    "fp32": "float32 throughout",
    "fp16": "float16, float32 where float16 would not do",
    "int8": "the encoder's quantised layers in int8, the rest as in fp16",
}


def prepare(bundle: Bundle, precision: str) -> dict[str, onnx.ModelProto]:
    """``encoder`` and ``decoder`` for TensorRT. precision : one of ``PRECISIONS``.

    Raises ``EngineError`` for int8 where the encoder's activations are not quantised.
    """
    import onnx

    graphs = bundle.manifest.graphs
    loaded = {
        role: onnx.load_from_string(bundle.files[spec.file])
        for role, spec in (("encoder", graphs.encoder), ("decoder", graphs.decoder))
    }
    if precision == "int8" and not is_quantised(loaded["encoder"]):
        raise EngineError(
            f"the encoder of {bundle.path} has no quantised layers; give --precision fp16, or a "
            "bundle of a model that was quantised"
        )
    return {role: prepare_graph(proto, precision) for role, proto in loaded.items()}


def prepare_graph(proto: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """One graph for TensorRT, checked. Where nothing in it is quantised int8 is fp16."""
    import onnx

    quantised = precision == "int8" and is_quantised(proto)
    made = respell(proto, quantised=quantised)
    if precision != "fp32":
        made = to_half(made)
    onnx.checker.check_model(made, full_check=True)
    return made
