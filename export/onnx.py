"""Caption model -> two float ONNX graphs, checked against the torch model they came from."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgecap.export.graphs import DecoderGraph, EncoderGraph, Exportable, NoveltyHead
from edgecap.training.models.base import Encoding

if TYPE_CHECKING:
    import onnx

OPSET = 18


def export_graphs(
    model: Exportable, novelty: NoveltyHead | None
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Encoder and decoder as ONNX, opset 18, with dynamic B and K only.

    Without a novelty head the encoder has no output ``novelty``.
    """
    encoder = EncoderGraph(model, novelty).eval()
    size = model.image_size
    image = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    )
    encoder_proto = export_module(
        encoder, (image,), ["image"], encoder.output_names(), ({0: torch.export.Dim("B", max=512)},)
    )
    with torch.no_grad():
        encoding = encoder.model.encode(encoder.model.frozen(image))
    decoder = DecoderGraph(model, encoding).eval()
    arguments, shapes = _decoder_arguments(decoder, encoding)
    decoder_proto = export_module(
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
    decoder: DecoderGraph, encoding: Encoding
) -> tuple[tuple[torch.Tensor, ...], tuple[Any, ...]]:
    model, batch, beams = decoder.model, len(encoding.pooled), 3
    rows, slots = batch * beams, beams * model.options.max_positions
    auto = torch.export.Dim.DYNAMIC
    given: dict[str, tuple[torch.Tensor, Any]] = {
        "token": (torch.arange(rows), {0: auto}),
        "position": (torch.tensor(1), {}),
        "parent": (torch.arange(rows), {0: auto}),
        "ancestry": (torch.arange(rows * slots).view(rows, slots) % slots == 0, {0: auto, 1: auto}),
    }
    for name, value in encoding.memory.items():
        given[f"memory.{name}"] = (value.contiguous(), {0: auto})
    for name, value in encoding.carry.items():
        given[f"carry.{name}"] = (value.repeat_interleave(beams, 0), {0: auto})
    for name, width in model.cache_widths().items():
        given[f"cache.{name}"] = (torch.zeros(batch, slots, width), {0: auto, 1: auto})
    pairs = [given[name] for name in decoder.input_names()]
    # The graph takes its tensors as *arguments: one tuple of shapes for that one parameter.
    return tuple(tensor for tensor, _ in pairs), (tuple(shape for _, shape in pairs),)


def export_module(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    shapes: tuple[Any, ...],
) -> onnx.ModelProto:
    """A torch module as one checked ONNX graph without external data."""
    import onnx

    with torch.no_grad(), _quiet_exporter():
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


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Errors only: the exporter warns of torchvision's absence and of its own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        log.setLevel(level)
