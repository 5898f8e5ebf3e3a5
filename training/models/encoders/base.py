"""What every image encoder is: a frozen half that can be cached, and a half that is trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

Frozen = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class EncoderOptions:
    """An encoder by name.

    weights : a file, a folder or a hub id of published weights; empty for a random start
    tuned_from : the first layer that is fine-tuned, in the encoder's own count; layers before it
        keep their weights and their output is cached. 0 trains all; None is the encoder's default,
        a number past the last layer freezes all
    settings : the encoder's own sizes, such as ``image_size``; what it knows is in its module's
        STANDARD, and what is not given is as published
    """

    name: str = "mobilenet-edgetpu"
    weights: str = ""
    tuned_from: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Features:
    """maps : name -> float [B, N, C], the same N places seen at several depths
    pooled : float [B, F]"""

    maps: dict[str, torch.Tensor]
    pooled: torch.Tensor


class ImageEncoder(nn.Module, ABC):
    """Turns uint8 pictures into maps of features; scaling and mean are inside.

    made_with : the options it was made with
    image_size : S
    places : N
    widths : map -> C
    features : F
    """

    made_with: EncoderOptions
    image_size: int
    places: int
    widths: dict[str, int]
    features: int

    @abstractmethod
    def frozen(self, pixels: torch.Tensor) -> Frozen:
        """uint8 [B, S, S, 3] RGB -> tensors [B, ...] that depend on no trained weight."""

    @abstractmethod
    def forward(self, frozen: Frozen) -> Features:
        """The trained half."""

    @abstractmethod
    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        """What is fine-tuned."""

    @abstractmethod
    def load_pretrained(self, weights: str) -> None:
        """Load published weights from a file, a folder or a hub id. Raises DataError."""
