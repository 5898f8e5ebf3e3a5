"""Preprocessing of imported captioners: what the host does, and what goes into the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.runtime.image import resize_image
from edgecap.runtime.manifest import ImageSpec

# Pillow's numbers of its filters, as preprocessor_config.json gives them.
FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}


class Normalise(nn.Module):
    """uint8 [B, S, S, 3] -> float [B, 3, S, S], scaled and centred as the source does."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, factor: float, mean: list[float], std: list[float]) -> None:
        super().__init__()
        spread = torch.tensor(std, dtype=torch.float64)
        scale, shift = factor / spread, -torch.tensor(mean, dtype=torch.float64) / spread
        self.register_buffer("scale", scale.float().view(3, 1, 1))
        self.register_buffer("shift", shift.float().view(3, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift


def read_preprocessing(processor: Any, source: str) -> tuple[ImageSpec, Normalise]:
    """The two halves of a transformers image processor.

    Raises DataError where it does something else than to resize, cut out the centre, rescale and
    normalise, which is found out by comparing with it.
    """
    spec = _spec(processor, source)
    factor = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.do_normalize:
        mean, std = _three(processor.image_mean), _three(processor.image_std)
    normalise = Normalise(factor, mean, std)
    _compare(processor, spec, normalise, source)
    return spec, normalise


def _spec(processor: Any, source: str) -> ImageSpec:
    if not processor.do_resize:
        raise DataError(
            f"the image processor of {source} does not resize (do_resize is off), but an encoder "
            "takes one size; set do_resize and size in preprocessor_config.json"
        )
    resample = FILTERS.get(int(processor.resample))
    if resample is None:
        raise DataError(
            f"the image processor of {source} resizes by Pillow's filter {processor.resample}; "
            "1 (lanczos), 2 (bilinear) and 3 (bicubic) are supported"
        )
    size = {key: value for key, value in dict(processor.size).items() if value is not None}
    crop = None
    if processor.do_center_crop:
        crop = {k: v for k, v in dict(processor.crop_size).items() if v is not None}
        if crop.get("height") != crop.get("width"):
            raise DataError(f"{source} cuts out {_words(crop)}; only squares are supported")
    if set(size) == {"height", "width"} and size["height"] == size["width"]:
        resize, side = "squash", size["height"]
    elif set(size) == {"shortest_edge"} and crop:
        resize, side = "crop", size["shortest_edge"]
    else:
        raise DataError(
            f"the image processor of {source} resizes to {_words(size)}"
            f"{'' if crop else ' without a centre crop'}; equal height and width, or a "
            "shortest_edge with a centre crop are supported"
        )
    kept = crop["height"] if crop else side
    if kept > side:
        raise DataError(
            f"{source} cuts {kept} pixels out of pictures of {side}; give a crop_size that fits"
        )
    return ImageSpec(
        size=int(kept),
        resize=resize,  # type: ignore[arg-type]
        resize_to=None if kept == side else int(side),
        resample=resample,  # type: ignore[arg-type]
    )


def _three(value: Any) -> list[float]:
    values = [value] * 3 if isinstance(value, int | float) else list(value)
    return [float(v) for v in values]


def _words(size: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in size.items()) or "nothing"


def _compare(processor: Any, spec: ImageSpec, normalise: Normalise, source: str) -> None:
    """The same pixels as the source's own processor, for one wide and one tall picture."""
    rng = np.random.default_rng(0)
    side = spec.side
    for shape in ((side + 37, 2 * side + 11, 3), (side + 64, side - side // 3, 3)):
        picture = rng.integers(0, 256, shape, np.uint8)
        theirs = torch.as_tensor(
            np.asarray(processor(picture, input_data_format="channels_last")["pixel_values"][0])
        )
        ours = normalise(torch.from_numpy(resize_image(picture, spec).copy())[None])[0]
        if ours.shape != theirs.shape or not torch.allclose(ours, theirs.float(), atol=1e-4):
            raise DataError(
                f"the image processor of {source}, {type(processor).__name__}, does more than to "
                "resize, cut out the centre, rescale and normalise; it is not supported"
            )
