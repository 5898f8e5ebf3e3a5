"""What every caption model is, whatever its family: two halves with one contract.

The training loss, validation, self-critical training and the exported graphs all go through these
methods, so a new family is one new file beside this one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.training.models.encoders.base import Frozen, ImageEncoder
from edgecap.training.vocabulary import PAD

Named = dict[str, torch.Tensor]


@dataclass
class Encoding:
    """What a decoder needs of B pictures; constant while their captions are decoded.

    memory : name -> [B, ...], such as cross-attention keys and values
    carry : name -> [B, ...], the first recurrent state; empty without one
    pooled : float [B, F], one vector a picture
    """

    memory: Named
    carry: Named
    pooled: torch.Tensor

    def tile(self, rows: int) -> Encoding:
        """Every picture ``rows`` times, for models that keep no caption axis apart."""
        return Encoding(
            {name: value.repeat_interleave(rows, 0) for name, value in self.memory.items()},
            {name: value.repeat_interleave(rows, 0) for name, value in self.carry.items()},
            self.pooled.repeat_interleave(rows, 0),
        )


@dataclass
class Decoded:
    """Teacher forcing's result.

    hidden : float [B, C, L, d], what ``logits`` takes
    attention : float [B, C, L, N], the weights on the picture's N places of each word, mean over
        heads, or None where the family has none or was not asked for them
    """

    hidden: torch.Tensor
    attention: torch.Tensor | None = None


@dataclass
class Step:
    """One decoding step of B * K rows.

    logits : float [B, K, V]
    carry : name -> [B, K, ...], the new recurrent state
    append : name -> [B, K, w], this step's rows of each cache
    """

    logits: torch.Tensor
    carry: Named = field(default_factory=dict)
    append: Named = field(default_factory=dict)


@dataclass
class Loss:
    """``total`` is what is minimised; ``parts`` are shown and logged."""

    total: torch.Tensor
    parts: dict[str, float] = field(default_factory=dict)


class CaptionModel(nn.Module, ABC):
    """uint8 pictures to captions. ``options`` is the family's frozen dataclass."""

    family: ClassVar[str]
    backbone: ImageEncoder

    def __init__(self, options: Any, backbone: ImageEncoder) -> None:
        super().__init__()
        self.options = options
        self.backbone = backbone

    @property
    def image_size(self) -> int:
        return self.backbone.image_size

    @property
    def own_frozen_half(self) -> bool:
        """Whether ``frozen`` gives other tensors than the backbone's, so that no other family can
        share what is cached of them."""
        return False

    # ---- encoder -----------------------------------------------------------------------------

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        """uint8 [B, S, S, 3] RGB -> what the untrained half of the backbone makes of it; cached."""
        return self.backbone.frozen(pixels)

    @abstractmethod
    def encode(self, frozen: Frozen) -> Encoding:
        """The rest of the encoder."""

    # ---- decoder -----------------------------------------------------------------------------

    @abstractmethod
    def decode(
        self, encoding: Encoding, tokens: torch.Tensor, *, attention: bool = False
    ) -> Decoded:
        """Teacher forcing on int64 [B, C, L]: C captions of each of B pictures."""

    @abstractmethod
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., V]."""

    @abstractmethod
    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step:
        """One token a row.

        tokens : int64 [B, K]
        position : int64 []
        ancestry : bool [B, K, S], which of the S cache slots are a row's own past
        memory : name -> [B, ...]
        carry : name -> [B, K, ...], each row's state, gathered from its parent already
        cache : name -> [B, S, w]
        """

    def cache_widths(self) -> dict[str, int]:
        """Name -> w of every cache; empty for recurrent families."""
        return {}

    def loss(self, encoding: Encoding, tokens: torch.Tensor, smoothing: float) -> Loss:
        """Cross-entropy of tokens int64 [B, C, T + 1] (BOS, words, EOS, PAD). A family with more
        terms overrides it."""
        inputs, targets, kept = shift(tokens)
        hidden = self.decode(encoding, inputs).hidden
        return Loss(word_loss(self, hidden, targets, kept, smoothing))

    # ---- what is trained ---------------------------------------------------------------------

    def tuned_backbone(self) -> Iterator[nn.Parameter]:
        """Parameters of the backbone that captioning fine-tunes, at the encoder's rate."""
        return self.backbone.tuned_parameters()


def shift(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """[B, C, T + 1] -> inputs, targets and bool mask of real targets, [B, C, L] each."""
    longest = max(2, int((tokens != PAD).sum(-1).max()))
    targets = tokens[:, :, 1:longest]
    return tokens[:, :, : longest - 1], targets, targets != PAD


def word_loss(
    model: CaptionModel,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    kept: torch.Tensor,
    smoothing: float,
) -> torch.Tensor:
    """Mean cross-entropy a word; logits exist only off the padding."""
    return F.cross_entropy(
        model.logits(hidden[kept]).float(), targets[kept], label_smoothing=smoothing
    )
