"""The image half of CLIP (Radford et al. 2021), the network of the package transformers.

Layers: 0 cuts the picture into patches, 1 to L are the blocks, L + 1 is the projection to the space
that pictures and texts share. The map ``grid`` holds the patches after the last block, pooled is
the projected class token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecap.training.models.encoders.base import EncoderOptions, Features, Frozen
from edgecap.training.models.encoders.layered import Colour, check_heads, check_sides, read_settings
from edgecap.training.models.encoders.transformers_encoder import (
    TransformersEncoder,
    build,
    need_transformers,
    read_published,
)
from edgecap.training.models.published import read_config


@dataclass(frozen=True)
class ClipVisionSettings:
    """As published: ViT-B/32."""

    image_size: int = 224
    patch: int = 32  # pixels a side
    width: int = 768
    depth: int = 12
    heads: int = 12
    hidden: int = 3072  # of the feed-forward layers
    projection: int = 512  # of the pooled vector
    activation: str = "quick_gelu"
    mean: Colour = (0.48145466, 0.4578275, 0.40821073)
    std: Colour = (0.26862954, 0.26130258, 0.27577711)


STANDARD = {"clip-vision": ClipVisionSettings()}


class ClipVision(TransformersEncoder):
    TUNED = 1 << 30  # no layer: what makes CLIP good is lost in a few steps of tuning

    def __init__(self, options: EncoderOptions, settings: ClipVisionSettings) -> None:
        super().__init__(options, settings)
        check_sides(settings.image_size, settings.patch)
        check_heads(settings.width, settings.heads)
        self.net = build(self._network, self.name)
        self.places = (settings.image_size // settings.patch) ** 2
        self.features = settings.projection
        self.widths = {"grid": settings.width}
        self.check_cut()

    def _network(self) -> Any:
        transformers = need_transformers(self.name)
        config = transformers.CLIPVisionConfig(
            image_size=self.settings.image_size,
            patch_size=self.settings.patch,
            hidden_size=self.settings.width,
            num_hidden_layers=self.settings.depth,
            num_attention_heads=self.settings.heads,
            intermediate_size=self.settings.hidden,
            projection_dim=self.settings.projection,
            hidden_act=self.settings.activation,
        )
        return transformers.CLIPVisionModelWithProjection(config)

    def parts(self) -> list[list[nn.Module]]:
        vision = self.net.vision_model
        return [
            [vision.embeddings, vision.pre_layrnorm],
            *([layer] for layer in vision.encoder.layers),
            [vision.post_layernorm, self.net.visual_projection],
        ]

    def layers(self) -> list[Callable[..., Frozen]]:
        def block(layer: nn.Module) -> Callable[..., Frozen]:
            return lambda x: (layer(x, None),)

        vision = self.net.vision_model
        return [
            lambda x: (vision.pre_layrnorm(vision.embeddings(x)),),
            *(block(layer) for layer in vision.encoder.layers),
            lambda x: (x[:, 1:], self.net.visual_projection(vision.post_layernorm(x[:, 0]))),
        ]

    def finish(self, *state: torch.Tensor) -> Features:
        patches, pooled = state
        return Features({"grid": patches}, pooled)


def settings_of(weights: str) -> dict[str, Any]:
    """Settings that the files beside published weights tell."""
    names = {
        "image_size": "image_size",
        "patch": "patch_size",
        "width": "hidden_size",
        "depth": "num_hidden_layers",
        "heads": "num_attention_heads",
        "hidden": "intermediate_size",
        "projection": "projection_dim",
        "activation": "hidden_act",
    }
    found = read_published(weights, names, "vision_config")
    whole = read_config(weights)
    if "vision_config" in whole and "projection_dim" in whole:
        # Weights of both halves of CLIP say it once for both.
        found["projection"] = whole["projection_dim"]
    return found


def make(options: EncoderOptions) -> ClipVision:
    standard = STANDARD[options.name]
    return ClipVision(options, read_settings(options.name, standard, options.settings))
