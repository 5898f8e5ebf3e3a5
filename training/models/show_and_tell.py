"""Show and Tell (Vinyals et al. 2015): one vector of the picture starts a recurrent decoder.

The picture is the decoder's first input and is shown to it once; after it come the words. That
first step belongs to ``encode``, so a picture is nothing but a recurrent state to the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.base import CaptionModel, Decoded, Encoding, Named, Step
from edgecap.training.models.encoders.base import Frozen, ImageEncoder
from edgecap.training.models.layers import FastDropout
from edgecap.training.models.recurrent import Recurrent, check_cell, check_share, check_sizes


@dataclass(frozen=True)
class ShowAndTellOptions:
    """tied : the output matrix is the embedding; ``width`` and ``hidden`` are then equal"""

    vocab_size: int
    cell: str = "lstm"  # or "gru"
    width: int = 512  # E, of the word and picture embeddings
    hidden: int = 512  # H, of the recurrent state
    tied: bool = True
    max_positions: int = 20  # T, EOS counted
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_cell(self.cell)
        check_sizes(self, "vocab_size", "width", "hidden", "max_positions")
        check_share(self, "dropout")
        if self.tied and self.width != self.hidden:
            raise DataError(
                f"width is {self.width} and hidden {self.hidden}; a tied output matrix needs them "
                "equal: make them so, or set tied to false"
            )


class ShowAndTell(CaptionModel):
    """uint8 pictures to captions; see the module's docstring."""

    family = "show-and-tell"
    options: ShowAndTellOptions

    def __init__(self, options: ShowAndTellOptions, backbone: ImageEncoder) -> None:
        super().__init__(options, backbone)
        self.project = nn.Linear(backbone.features, options.width)
        # Encoders differ in the scale of their features; the decoder should not.
        self.picture_norm = nn.LayerNorm(options.width)
        self.embed = nn.Embedding(options.vocab_size, options.width)
        self.decoder = Recurrent(options.cell, options.width, options.hidden)
        self.dropout = FastDropout(options.dropout)
        self.output = None if options.tied else nn.Linear(options.hidden, options.vocab_size)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)

    def encode(self, frozen: Frozen) -> Encoding:
        """carry: h and, of an LSTM, c, [B, H] each, after the picture was read."""
        pooled = self.backbone(frozen).pooled
        picture = self.dropout(self.picture_norm(self.project(pooled)))
        return Encoding({}, self.decoder.begin(picture), pooled)

    def decode(
        self, encoding: Encoding, tokens: torch.Tensor, *, attention: bool = False
    ) -> Decoded:
        batch, captions, length = tokens.shape
        words = self.dropout(self.embed(tokens.reshape(-1, length)))
        hidden = self.decoder(words, encoding.tile(captions).carry)
        return Decoded(self.dropout(hidden).view(batch, captions, length, -1))

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step:
        state = self.decoder.step(self.embed(tokens), carry)
        return Step(self.logits(state["h"]), state)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.output is None:
            return F.linear(hidden, self.embed.weight)
        logits: torch.Tensor = self.output(hidden)
        return logits
