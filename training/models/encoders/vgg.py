"""VGG-16 (Simonyan and Zisserman 2015) up to its last convolution, the encoder of Show, Attend and
Tell.

Layers: 0 to 12 are the convolutions. The one map ``grid`` is the last of them, at stride 16, before
the pooling that follows it. Names are those of torchvision's state dict, so weights load by name;
the classifier in it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgecap.training.models.encoders.base import EncoderOptions, Features
from edgecap.training.models.encoders.layered import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Colour,
    LayeredEncoder,
    check_sides,
    grid_features,
    read_settings,
)
from edgecap.training.models.published import match, read_state

BLOCKS = (2, 2, 3, 3, 3)  # convolutions of every block; a pooling stands between blocks
STRIDE = 16


@dataclass(frozen=True)
class VggSettings:
    image_size: int = 224
    widths: tuple[int, int, int, int, int] = (64, 128, 256, 512, 512)  # channels of every block
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD


STANDARD = {"vgg16": VggSettings()}


class Vgg16(LayeredEncoder):
    TUNED = 10  # the last block

    def __init__(self, options: EncoderOptions, settings: VggSettings) -> None:
        super().__init__(options, settings)
        check_sides(settings.image_size, STRIDE)
        made: list[nn.Module] = []
        channels = 3
        for block, (count, width) in enumerate(zip(BLOCKS, settings.widths, strict=True)):
            if block:
                made.append(nn.MaxPool2d(2, 2))
            for _ in range(count):
                made += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=False)]
                channels = width
        self.net = nn.Sequential(*made)
        for module in made:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        self.places = (settings.image_size // STRIDE) ** 2
        self.features = channels
        self.widths = {"grid": channels}
        self.check_cut()

    def parts(self) -> list[list[nn.Module]]:
        """A convolution with its ReLU and the pooling before it, where there is one."""
        found: list[list[nn.Module]] = []
        before: list[nn.Module] = []
        for module in self.net:
            before.append(module)
            if isinstance(module, nn.ReLU):
                found.append(before)
                before = []
        return found

    def finish(self, *state: torch.Tensor) -> Features:
        return grid_features(state[0])

    def load_pretrained(self, weights: str) -> None:
        """Load ``features.N.weight`` and ``.bias`` of a state dict of torchvision."""
        state = {name.removeprefix("features."): v for name, v in read_state(weights).items()}
        self.net.load_state_dict(match(state, self.net.state_dict(), weights))


def make(options: EncoderOptions) -> Vgg16:
    return Vgg16(options, read_settings(options.name, STANDARD[options.name], options.settings))
