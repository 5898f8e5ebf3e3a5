"""Mappers of ClipCap (Mokady et al. 2021): a picture's vector to P embeddings of words."""

from __future__ import annotations

import torch
from torch import nn

from edgecap.training.models.layers import FastDropout, FeedForward, attend_self


class MlpMapper(nn.Module):
    """Two linear layers around a tanh."""

    def __init__(self, features: int, width: int, prefix: int) -> None:
        super().__init__()
        middle = width * prefix // 2
        self.prefix, self.width = prefix, width
        self.up, self.down = nn.Linear(features, middle), nn.Linear(middle, width * prefix)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[B, F] -> [B, P, d]."""
        mapped: torch.Tensor = self.down(torch.tanh(self.up(pooled)))
        return mapped.view(-1, self.prefix, self.width)


class MapperLayer(nn.Module):
    """Pre-norm self-attention and feed-forward, everyone seeing everyone."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.ffn = FeedForward(width, 2 * width, dropout)
        self.dropout = FastDropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.out(attend_self(self.qkv(self.norm1(x)), self.heads)))
        return x + self.dropout(self.ffn(self.norm2(x)))


class TransformerMapper(nn.Module):
    """The vector as a few tokens, and P learned ones that look at them and become the prefix."""

    def __init__(
        self,
        features: int,
        width: int,
        prefix: int,
        tokens: int,
        layers: int,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.unfold = nn.Linear(features, tokens * width)
        self.start = nn.Parameter(torch.randn(prefix, width))
        self.layers = nn.ModuleList(MapperLayer(width, heads, dropout) for _ in range(layers))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[B, F] -> [B, P, d]."""
        x = self.unfold(pooled).view(-1, self.tokens, self.width)
        x = torch.cat([x, self.start.expand(x.shape[0], -1, -1)], 1)
        for layer in self.layers:
            x = layer(x)
        return x[:, self.tokens :]
