"""ResNet-50 and ResNet-101 (He et al. 2016), the networks of the package transformers.

Layers: 0 is the stem, 1 to 4 the stages. The one map ``grid`` is the last stage at stride 32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecap.training.models.encoders.base import EncoderOptions, Features
from edgecap.training.models.encoders.layered import (
    IMAGENET_MEAN,
    IMAGENET_STD,
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
class ResNetSettings:
    image_size: int = 224
    stem: int = 64  # channels of the stem
    widths: tuple[int, ...] = (256, 512, 1024, 2048)  # channels of every stage
    depths: tuple[int, ...] = (3, 4, 6, 3)  # blocks of every stage
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD


STANDARD = {
    "resnet50": ResNetSettings(),
    "resnet101": ResNetSettings(depths=(3, 4, 23, 3)),
}


class ResNet(TransformersEncoder):
    TUNED = 4  # the last stage

    def __init__(self, options: EncoderOptions, settings: ResNetSettings) -> None:
        super().__init__(options, settings)
        check_sides(settings.image_size, STRIDE)
        self.net = build(self._network, self.name)
        self.places = (settings.image_size // STRIDE) ** 2
        self.features = settings.widths[-1]
        self.widths = {"grid": self.features}
        self.check_cut()

    def _network(self) -> Any:
        transformers = need_transformers(self.name)
        config = transformers.ResNetConfig(
            embedding_size=self.settings.stem,
            hidden_sizes=list(self.settings.widths),
            depths=list(self.settings.depths),
        )
        return transformers.ResNetModel(config)

    def parts(self) -> list[list[nn.Module]]:
        return [[self.net.embedder], *([stage] for stage in self.net.encoder.stages)]

    def finish(self, *state: torch.Tensor) -> Features:
        return grid_features(state[0])


def settings_of(weights: str) -> dict[str, Any]:
    """Settings that the files beside published weights tell."""
    names = {"stem": "embedding_size", "widths": "hidden_sizes", "depths": "depths"}
    return read_published(weights, names)


def make(options: EncoderOptions) -> ResNet:
    return ResNet(options, read_settings(options.name, STANDARD[options.name], options.settings))
