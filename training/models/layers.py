"""Pieces that several captioners share."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn


class FastDropout(nn.Module):
    """Dropout that reads its mask at a random offset of a shared pool of random bits.

    Drawing fresh Bernoulli numbers takes two fifths of a training step on a CPU; a pool that is
    drawn anew every few hundred uses trains as well. Exported graphs contain nothing of it. The
    pool outlives a module, so a run that is to be repeatable calls :meth:`forget` where it seeds.
    """

    POOL = 1 << 24
    USES = 2000
    _pools: dict[tuple[float, torch.dtype], tuple[torch.Tensor, int]] = {}  # noqa: RUF012

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return x
        count = x.numel()
        if count >= self.POOL or x.device.type != "cpu":
            return F.dropout(x, self.p)
        pool = self._pool(x.dtype)
        start = int(torch.randint(0, self.POOL - count, ()))
        return x * pool[start : start + count].view(x.shape)

    @classmethod
    def forget(cls) -> None:
        """Draw new pools at the next use: masks then follow from torch's seed alone."""
        cls._pools.clear()

    def _pool(self, dtype: torch.dtype) -> torch.Tensor:
        pool, uses = self._pools.get((self.p, dtype), (None, 0))
        if pool is None or uses >= self.USES:
            pool, uses = (torch.rand(self.POOL) >= self.p).to(dtype) / (1 - self.p), 0
        self._pools[self.p, dtype] = (pool, uses + 1)
        return pool


class FeedForward(nn.Module):
    """Two linear layers around a ReLU."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = FastDropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.dropout(F.relu(self.up(x))))


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, N, d] -> [B, h, N, d / h]."""
    return x.view(x.shape[0], x.shape[1], heads, x.shape[2] // heads).transpose(1, 2)


def attend(
    q: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    heads: int,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multi-head attention, [B, L, d] to [B, L, d].

    keys : [B, h, d / h, N], transposed already
    values : [B, h, N, d / h]
    mask : added to the scores [B, h, L, N]

    Written out because the fused CPU operator's backward pass is slower than these five.
    """
    batch, length, d = q.shape
    weights = attention_weights(q, keys, heads, mask)
    return (weights @ values).transpose(1, 2).reshape(batch, length, d)


def attention_weights(
    q: torch.Tensor, keys: torch.Tensor, heads: int, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The softmax of :func:`attend`, [B, h, L, N]."""
    scores = (split_heads(q, heads) @ keys) * (1 / math.sqrt(q.shape[-1] // heads))
    if mask is not None:
        scores = scores + mask
    return scores.softmax(-1)


def attend_self(qkv: torch.Tensor, heads: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Self-attention of a joint projection [B, L, 3 * d]."""
    q, k, v = qkv.chunk(3, -1)
    return attend(q, split_heads(k, heads).transpose(2, 3), split_heads(v, heads), heads, mask)
