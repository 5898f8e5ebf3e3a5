"""MobileNetV2 (Sandler et al. 2018), the network of the package transformers.

Layers: 0 is the stem, 1 to 16 the inverted residual blocks, 17 the last 1 x 1 convolution. The one
map ``grid`` is what comes out of it, at stride 32. Padding is TensorFlow's SAME.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecap.training.models.encoders.base import EncoderOptions, Features
from edgecap.training.models.encoders.layered import (
    Colour,
    check_sides,
    grid_features,
    read_settings,
)
from edgecap.training.models.encoders.transformers_encoder import (
    TransformersEncoder,
    build,
    need_transformers,
    read_published,
)

STRIDE = 32


@dataclass(frozen=True)
class MobileNetV2Settings:
    image_size: int = 224
    width: float = 1.0  # multiplier of all channels but the last 1280
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)


STANDARD = {"mobilenet-v2": MobileNetV2Settings()}


class MobileNetV2(TransformersEncoder):
    TUNED = 14  # the blocks at stride 32

    def __init__(self, options: EncoderOptions, settings: MobileNetV2Settings) -> None:
        super().__init__(options, settings)
        check_sides(settings.image_size, STRIDE)
        self.net = build(self._network, self.name)
        self.places = (settings.image_size // STRIDE) ** 2
        self.features = self.net.conv_1x1.convolution.out_channels
        self.widths = {"grid": self.features}
        self.check_cut()

    def _network(self) -> Any:
        transformers = need_transformers(self.name)
        config = transformers.MobileNetV2Config(
            image_size=self.settings.image_size,
            depth_multiplier=self.settings.width,
            tf_padding=True,
        )
        return transformers.MobileNetV2Model(config)

    def parts(self) -> list[list[nn.Module]]:
        return [[m] for m in (self.net.conv_stem, *self.net.layer, self.net.conv_1x1)]

    def finish(self, *state: torch.Tensor) -> Features:
        return grid_features(state[0])


def settings_of(weights: str) -> dict[str, Any]:
    """Settings that the files beside published weights tell."""
    return read_published(weights, {"width": "depth_multiplier", "image_size": "image_size"})


def make(options: EncoderOptions) -> MobileNetV2:
    standard = STANDARD[options.name]
    return MobileNetV2(options, read_settings(options.name, standard, options.settings))
