"""A decoder's graph as the CPU kernels take it: sizes and float32 arrays by name.

``cuda_transformer`` and ``cuda_recurrent`` recognise it; runtime/native/step_spec.cpp reads what is
made here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.cuda_onnx import Graph, Unlike
from edgecap.runtime.engines.cuda_recurrent import read_recurrent
from edgecap.runtime.engines.cuda_spec import (
    DecoderSpec,
    Linear,
    Norm,
    RecurrentSpec,
    TransformerSpec,
)
from edgecap.runtime.engines.cuda_transformer import read_transformer
from edgecap.runtime.errors import EngineError

FAMILIES = (
    "Transformer decoders (image-transformer, GPT-2 and BERT with cross-attention or a prefix) "
    "and LSTM or GRU decoders with additive attention or without"
)


def read_spec(bundle: Bundle, model: Any) -> DecoderSpec:
    """The decoder of a bundle. model : its graph, as ``load_model`` gives it

    Raises ``EngineError`` for one that the kernels do not compute.
    """
    manifest = bundle.manifest
    try:
        graph = Graph(model)
        if any(name.startswith("carry.") for name in graph.inputs):
            return read_recurrent(graph)
        return read_transformer(graph)
    except Unlike as error:
        raise EngineError(
            f"the CPU kernels do not decode {manifest.name} ({manifest.family}): {error}. They "
            f"take {FAMILIES}, with weights in fp32, fp16 or int8 that is widened"
        ) from None


def packed(spec: DecoderSpec, positions: int) -> dict[str, Any]:
    """The spec as ``_native.StepDecoder`` takes it. positions : T, the longest caption"""
    if isinstance(spec, TransformerSpec):
        return _transformer(spec, positions)
    return _recurrent(spec, positions)


def _recurrent(spec: RecurrentSpec, positions: int) -> dict[str, Any]:
    look = spec.look
    made: dict[str, Any] = {
        "lstm": spec.cell == "lstm",
        "vocab": spec.vocab,
        "positions": positions,
        "width": int(spec.words.shape[1]),
        "hidden": spec.hidden,
        "words": spec.words,
        "inputs": _linear(spec.inputs),
        "recurrent": _linear(spec.recurrent),
        "head": _linear(spec.head),
        "places": look.places if look else 0,
    }
    if look:
        made |= {
            "score": np.ascontiguousarray(look.score),
            "query": _linear(look.query),
            "from_context": _linear(look.from_context),
            "read_state": _linear(look.read_state),
            "read_context": _linear(look.read_context),
        }
    return made


def _linear(linear: Linear | None) -> tuple[Any, Any] | None:
    return None if linear is None else (linear.weight, linear.bias)


def _norm(norm: Norm | None) -> tuple[Any, Any, float] | None:
    return None if norm is None else (norm.weight, norm.bias, norm.eps)


def _transformer(spec: TransformerSpec, positions: int) -> dict[str, Any]:
    transform = spec.transform
    layers = []
    for layer in spec.layers:
        cross = layer.cross
        layers.append(
            {
                "qkv": _linear(layer.qkv),
                "out": _linear(layer.out),
                "up": _linear(layer.up),
                "down": _linear(layer.down),
                "norm": _norm(layer.norm),
                "feed_norm": _norm(layer.feed_norm),
                "activation": layer.activation,
                "scale": layer.scale,
                "cross_query": _linear(cross.query) if cross else None,
                "cross_out": _linear(cross.out) if cross else None,
                "cross_norm": _norm(cross.norm) if cross else None,
                "cross_scale": cross.scale if cross else 1.0,
            }
        )
    return {
        "width": spec.width,
        "heads": spec.heads,
        "vocab": spec.vocab,
        "positions": positions,
        "offset": spec.offset,
        "memory": spec.memory,
        "before": spec.before,
        "words": spec.words,
        "places": spec.places,
        "norm_words": _norm(spec.norm_words),
        "norm": _norm(spec.norm),
        "transform": _linear(transform.layer) if transform else None,
        "transform_activation": transform.activation if transform else "tanh",
        "transform_norm": _norm(transform.norm) if transform else None,
        "head": _linear(spec.head),
        "layers": layers,
    }
