"""Caption model -> two float ONNX graphs, checked against the torch model they came from."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgecap.export.graphs import DecoderGraph, EncoderGraph, NoveltyHead
from edgecap.training.models.image_transformer import IMAGE_SIZE, ImageTransformer

if TYPE_CHECKING:
    import onnx

OPSET = 18


def export_graphs(
    model: ImageTransformer, novelty: NoveltyHead
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Encoder and decoder as ONNX, opset 18, with dynamic B and K only."""
    encoder = EncoderGraph(model, novelty).eval()
    image = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    )
    with torch.no_grad():
        outputs = encoder(image)
    encoder_proto = _export(
        encoder, (image,), ["image"], encoder.output_names(), ({0: torch.export.Dim("B", max=512)},)
    )
    decoder = DecoderGraph(model).eval()
    arguments, shapes = _decoder_arguments(model, outputs[: 2 * len(model.decoder)])
    decoder_proto = _export(
        decoder, arguments, decoder.input_names(), decoder.output_names(), shapes
    )
    _name_free_sides(decoder_proto)
    return encoder_proto, decoder_proto


def _name_free_sides(decoder: onnx.ModelProto) -> None:
    """Call the free sides what the contract calls them: R rows, B pictures, S = K * T slots."""
    for value in (*decoder.graph.input, *decoder.graph.output):
        if value.name == "position":
            continue
        kind = value.name.partition(".")[0]
        names = {"memory": ("B",), "cache": ("B", "S"), "ancestry": ("R", "S")}.get(kind, ("R",))
        for side, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            side.dim_param = name


def _decoder_arguments(
    model: ImageTransformer, memory: tuple[torch.Tensor, ...]
) -> tuple[tuple[torch.Tensor, ...], tuple[Any, ...]]:
    batch, beams = memory[0].shape[0], 3
    slots = beams * model.options.max_positions
    cache = torch.zeros(batch, slots, model.options.width)
    ancestry = torch.zeros(batch * beams, slots, dtype=torch.bool)
    ancestry[:, 0] = True
    auto = torch.export.Dim.DYNAMIC
    arguments = (
        torch.arange(batch * beams),
        torch.tensor(1),
        ancestry,
        *(part.contiguous() for part in memory),
        *(cache.clone() for _ in memory),
    )
    shapes: tuple[Any, ...] = (
        {0: auto},
        {},
        {0: auto, 1: auto},
        (*({0: auto} for _ in memory), *({0: auto, 1: auto} for _ in memory)),
    )
    return arguments, shapes


def _export(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> onnx.ModelProto:
    import onnx

    with torch.no_grad():
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=shapes,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.onnx"
        program.save(path)
        proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    return proto
