"""The frozen half of an encoder as an integer graph, and features computed by it.

What is trained after it then learns on the very features that the device will compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from edgecap.export.graphs import fold_batch_norms
from edgecap.export.onnx import export_module
from edgecap.export.quantize import QuantizeOptions, quantize_encoder, store_weights_int8
from edgecap.runtime.engines.onnx import open_session
from edgecap.runtime.image import resize_image
from edgecap.training.data import CaptionedImage
from edgecap.training.data.base import load_pixels
from edgecap.training.models.base import CaptionModel
from edgecap.training.models.encoders.base import Frozen

if TYPE_CHECKING:
    import onnx


class FrozenGraph(torch.nn.Module):
    """image uint8 [B, S, S, 3] -> the tensors of ``CaptionModel.frozen``."""

    def __init__(self, model: CaptionModel) -> None:
        super().__init__()
        self.model = fold_batch_norms(model)

    def forward(self, image: torch.Tensor) -> Frozen:
        return self.model.frozen(image)


def calibration_pictures(
    images: Sequence[CaptionedImage], size: int, count: int, seed: int
) -> list[npt.NDArray[np.uint8]]:
    """``count`` of the photographs as the encoder sees them; equal arguments, equal pictures."""
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    return [resize_image(load_pixels(images[i]), size) for i in chosen]


def quantize_trunk(
    model: CaptionModel, calibration: Sequence[npt.NDArray[np.uint8]], options: QuantizeOptions
) -> onnx.ModelProto:
    """The frozen half, quantised as :func:`quantize_encoder` quantises it in the whole encoder.

    options : those of the whole encoder, whose ``float_last`` counts the trained convolutions, too
    """
    size = model.image_size
    with torch.no_grad():
        parts = len(model.frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8)))
    proto = export_module(
        FrozenGraph(model).eval(),
        (torch.zeros(2, size, size, 3, dtype=torch.uint8),),
        ["image"],
        [f"part.{i}" for i in range(parts)],
        ({0: torch.export.Dim("B", max=512)},),
    )
    inside = sum(node.op_type == "Conv" for node in proto.graph.node)
    every = sum(isinstance(module, torch.nn.Conv2d) for module in model.backbone.modules())
    here = QuantizeOptions(
        static=True,
        method=options.method,
        percentile=options.percentile,
        float_first=options.float_first,
        float_last=max(0, options.float_last - (every - inside)),
        matmuls=False,
    )
    return store_weights_int8(quantize_encoder(proto, calibration, here))


class QuantizedTrunk:
    """Runs the integer graph in place of ``CaptionModel.frozen``."""

    def __init__(self, proto: onnx.ModelProto, threads: int) -> None:
        self._session = open_session(proto.SerializeToString(), "trunk.onnx", threads)

    def __call__(self, pixels: torch.Tensor) -> Frozen:
        found = self._session.run(None, {"image": pixels.numpy()})
        return tuple(torch.from_numpy(part) for part in found)
