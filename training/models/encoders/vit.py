"""Vision Transformer (Dosovitskiy et al. 2021), the network of the package transformers.

Layers: 0 cuts the picture into patches, 1 to L are the blocks, L + 1 is the last norm. The map
``grid`` holds the patches, pooled is the class token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecap.training.models.encoders.base import EncoderOptions, Features
from edgecap.training.models.encoders.layered import Colour, check_heads, check_sides, read_settings
from edgecap.training.models.encoders.transformers_encoder import (
    TransformersEncoder,
    build,
    need_transformers,
    read_published,
)


@dataclass(frozen=True)
class ViTSettings:
    image_size: int = 224
    patch: int = 16  # pixels a side
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072  # of the feed-forward layers
    norm_eps: float = 1e-12
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)


STANDARD = {"vit": ViTSettings()}


class ViT(TransformersEncoder):
    TUNED = 1 << 30  # no layer: large blocks are costly to tune

    def __init__(self, options: EncoderOptions, settings: ViTSettings) -> None:
        super().__init__(options, settings)
        check_sides(settings.image_size, settings.patch)
        check_heads(settings.width, settings.heads)
        self.net = build(self._network, self.name)
        self.places = (settings.image_size // settings.patch) ** 2
        self.features = settings.width
        self.widths = {"grid": settings.width}
        self.check_cut()

    def _network(self) -> Any:
        transformers = need_transformers(self.name)
        config = transformers.ViTConfig(
            image_size=self.settings.image_size,
            patch_size=self.settings.patch,
            hidden_size=self.settings.width,
            num_hidden_layers=self.settings.depth,
            num_attention_heads=self.settings.heads,
            intermediate_size=self.settings.hidden,
            layer_norm_eps=self.settings.norm_eps,
        )
        return transformers.ViTModel(config, add_pooling_layer=False)

    def parts(self) -> list[list[nn.Module]]:
        return [[m] for m in (self.net.embeddings, *self.net.layers, self.net.layernorm)]

    def finish(self, *state: torch.Tensor) -> Features:
        tokens = state[0]
        return Features({"grid": tokens[:, 1:]}, tokens[:, 0])


def settings_of(weights: str) -> dict[str, Any]:
    """Settings that the files beside published weights tell."""
    names = {
        "image_size": "image_size",
        "patch": "patch_size",
        "width": "hidden_size",
        "depth": "num_hidden_layers",
        "heads": "num_attention_heads",
        "hidden": "intermediate_size",
        "norm_eps": "layer_norm_eps",
    }
    return read_published(weights, names)


def make(options: EncoderOptions) -> ViT:
    return ViT(options, read_settings(options.name, STANDARD[options.name], options.settings))
