"""The picture cut into patches, each projected by one learned layer (Dosovitskiy et al. 2021).

No pretrained network: with it the Image Transformer's self-attention layers are the encoder.
Layer 0 is the projection. The map ``grid`` holds the patches, pooled is their mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders.base import EncoderOptions, Features, Frozen
from edgecap.training.models.encoders.layered import (
    Colour,
    LayeredEncoder,
    check_sides,
    grid_features,
    read_settings,
)


@dataclass(frozen=True)
class PatchSettings:
    image_size: int = 224
    patch: int = 16  # pixels a side
    width: int = 384
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)


STANDARD = {"patches": PatchSettings()}


class Patches(LayeredEncoder):
    """A strided convolution and a norm; positions are the captioner's."""

    TUNED = 0

    def __init__(self, options: EncoderOptions, settings: PatchSettings) -> None:
        super().__init__(options, settings)
        check_sides(settings.image_size, settings.patch)
        width, patch = settings.width, settings.patch
        self.projection = nn.Conv2d(3, width, patch, patch)
        # Without a norm two linear layers would follow each other in the captioner.
        self.norm = nn.LayerNorm(width)
        self.places = (settings.image_size // patch) ** 2
        self.features = width
        self.widths = {"grid": width}
        self.check_cut()

    def parts(self) -> list[list[nn.Module]]:
        return [[self.projection, self.norm]]

    def layers(self) -> list[Callable[..., Frozen]]:
        return [lambda x: (self.norm(self.projection(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2),)]

    def finish(self, *state: torch.Tensor) -> Features:
        return grid_features(state[0])

    def load_pretrained(self, weights: str) -> None:
        raise DataError(
            f"patches has no published weights, {weights!r} was given; leave weights empty"
        )


def make(options: EncoderOptions) -> Patches:
    return Patches(options, read_settings(options.name, STANDARD[options.name], options.settings))
