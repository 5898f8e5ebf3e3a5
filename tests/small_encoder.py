"""An encoder of two convolutions, for whole training runs in a second."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders import ENCODERS
from edgecap.training.models.encoders.base import EncoderOptions, Features, Frozen, ImageEncoder

SIZE, WIDTH = 32, 16


class SmallEncoder(ImageEncoder):
    """``head`` is trained, ``stem`` unless ``tuned_from`` is 0 is not."""

    def __init__(self, tuned_from: int | None) -> None:
        super().__init__()
        self.image_size, self.places, self.features = SIZE, 16, WIDTH
        self.widths = {"map": WIDTH}
        self.all = tuned_from == 0
        state = torch.random.get_rng_state()
        torch.manual_seed(0)  # stands for published weights
        self.stem, self.head = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, WIDTH, 3, 2, 1)
        torch.random.set_rng_state(state)

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        return (pixels,) if self.all else (self._stem(pixels),)

    def forward(self, frozen: Frozen) -> Features:
        x = self._stem(frozen[0]) if self.all else frozen[0]
        tokens = F.relu(self.head(x)).flatten(2).transpose(1, 2)
        return Features({"map": tokens}, tokens.mean(1))

    def _stem(self, pixels: torch.Tensor) -> torch.Tensor:
        return F.relu(self.stem(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1))

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        yield from (self if self.all else self.head).parameters()

    def load_pretrained(self, weights: str) -> None:
        raise DataError(f"no weights at {weights}")


def make(options: EncoderOptions) -> SmallEncoder:
    return SmallEncoder(options.tuned_from)


ENCODERS.setdefault("small", "small_encoder")
