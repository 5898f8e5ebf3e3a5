"""Image Transformer captioner over CNN grid features; the family of the default model.

One self-attention encoder layer over 7 x 7 grid tokens and one global token, then a Transformer
decoder with cross-attention (Vaswani et al. 2017; pre-norm). Grid tokens see the network's last
map, its stride-16 map folded to the same grid, and the plain colours of their cell, because the
last map of an ImageNet network has lost most of what colour words need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.training.models.layers import (
    FastDropout,
    FeedForward,
    attend,
    attend_self,
    split_heads,
)
from edgecap.training.models.mobilenet_edgetpu import FEATURES, MobileNetEdgeTPU

IMAGE_SIZE = 224
GRID = 7
COLOUR_GRID = 28
TOKENS = GRID * GRID + 1


@dataclass(frozen=True)
class ImageTransformerOptions:
    vocab_size: int
    width: int = 384  # d
    heads: int = 6
    hidden: int = 1536  # of the feed-forward layers
    encoder_layers: int = 1
    decoder_layers: int = 2
    max_positions: int = 20  # T, EOS counted
    dropout: float = 0.2


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward over memory tokens [B, N, d]."""

    def __init__(self, options: ImageTransformerOptions) -> None:
        super().__init__()
        d = options.width
        self.heads = options.heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ffn = FeedForward(d, options.hidden, options.dropout)
        self.dropout = FastDropout(options.dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.out(attend_self(self.qkv(self.norm1(x)), self.heads)))
        return x + self.dropout(self.ffn(self.norm2(x)))


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention, cross-attention over the memory, feed-forward."""

    def __init__(self, options: ImageTransformerOptions) -> None:
        super().__init__()
        d = options.width
        self.heads = options.heads
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d), nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.self_out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.cross_q, self.cross_out = nn.Linear(d, d), nn.Linear(d, d)
        self.cross_kv = nn.Linear(d, 2 * d)
        self.ffn = FeedForward(d, options.hidden, options.dropout)
        self.dropout = FastDropout(options.dropout)

    def memory(self, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Computed once an image: keys [B, h, d / h, N] and values [B, h, N, d / h]."""
        keys, values = self.cross_kv(memory).chunk(2, -1)
        return split_heads(keys, self.heads).transpose(2, 3), split_heads(values, self.heads)

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Teacher forcing: x [B * C, L, d] for C captions an image, mask [L, L] additive."""
        rows, length, d = x.shape
        batch = keys.shape[0]
        attended = attend_self(self.qkv(self.norm1(x)), self.heads, mask)
        x = x + self.dropout(self.self_out(attended))
        # The captions of one image share its memory: fold them into the query length.
        q = self.cross_q(self.norm2(x)).view(batch, -1, d)
        crossed = attend(q, keys, values, self.heads).reshape(rows, length, d)
        x = x + self.dropout(self.cross_out(crossed))
        return x + self.dropout(self.ffn(self.norm3(x)))

    def step(
        self,
        x: torch.Tensor,
        memory: tuple[torch.Tensor, torch.Tensor],
        cache: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One token a row: x [B, K, d], cache [B, K * T, d], mask additive [B, 1, K, K * T + K].

        Returns x and this step's key and value rows [B, K, d].
        """
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        keys = split_heads(torch.cat([cache[0], k], 1), self.heads).transpose(2, 3)
        values = split_heads(torch.cat([cache[1], v], 1), self.heads)
        x = x + self.self_out(attend(q, keys, values, self.heads, mask))
        x = x + self.cross_out(attend(self.cross_q(self.norm2(x)), *memory, self.heads))
        return x + self.ffn(self.norm3(x)), k, v


class ImageTransformer(nn.Module):
    """uint8 pictures to captions; see the module's docstring."""

    family = "image-transformer"

    def __init__(self, options: ImageTransformerOptions) -> None:
        super().__init__()
        self.options = options
        d = options.width
        self.backbone = MobileNetEdgeTPU()
        self.project_head = nn.Linear(FEATURES, d)
        self.project_mid = nn.Linear(96 * 4, d)
        self.project_colour = nn.Linear(3 * (COLOUR_GRID // GRID) ** 2, d)
        self.project_global = nn.Linear(FEATURES, d)
        self.place = nn.Parameter(torch.randn(TOKENS, d) * 0.1)
        self.input_dropout = FastDropout(options.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(options) for _ in range(options.encoder_layers))
        self.memory_norm = nn.LayerNorm(d)
        self.embed = nn.Embedding(options.vocab_size, d)
        self.position = nn.Parameter(torch.randn(options.max_positions, d) * 0.02)
        self.decoder = nn.ModuleList(DecoderLayer(options) for _ in range(options.decoder_layers))
        self.norm = nn.LayerNorm(d)
        # Small, because the same matrix reads the words: a large one would first have to unlearn
        # to predict the word it has just read.
        nn.init.normal_(self.embed.weight, std=0.02)

    def layers(self) -> list[DecoderLayer]:
        """The decoder's layers."""
        return cast("list[DecoderLayer]", list(self.decoder))

    # ---- encoder ---------------------------------------------------------------------------

    def trunk(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [B, 224, 224, 3] RGB -> grid [B, 96, 14, 14] and colours 0..255 [B, 28, 28, 3]."""
        x = pixels.permute(0, 3, 1, 2).float()
        colours = F.avg_pool2d(x, IMAGE_SIZE // COLOUR_GRID).permute(0, 2, 3, 1)
        return self.backbone.trunk(x / 127.5 - 1), colours

    def grid(self, trunk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 96, 14, 14] -> the last map [B, 49, 1280] and its mean [B, 1280]."""
        tokens = self.backbone.tail(trunk).flatten(2).transpose(1, 2)
        return tokens, tokens.mean(1)

    def remember(
        self,
        trunk: torch.Tensor,
        colours: torch.Tensor,
        tokens: torch.Tensor,
        pooled: torch.Tensor,
    ) -> torch.Tensor:
        """Maps of three depths -> memory tokens [B, 50, d]."""
        x = self.project_head(tokens) + self.project_mid(_fold_channels(trunk))
        x = x + self.project_colour(_fold_colours(colours / 127.5 - 1))
        x = torch.cat([x, self.project_global(pooled)[:, None]], 1) + self.place
        x = self.input_dropout(x)
        for layer in self.encoder:
            x = layer(x)
        return self.memory_norm(x)

    # ---- decoder ---------------------------------------------------------------------------

    def decode(self, memory: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Teacher forcing: int64 [B, C, L] -> hidden states [B, C, L, d]."""
        batch, captions, length = tokens.shape
        x = self._embed(tokens.view(-1, length), self.position[:length])
        mask = torch.full((length, length), -1e9, dtype=x.dtype).triu(1)
        x = self.input_dropout(x)
        for layer in self.layers():
            x = layer(x, *layer.memory(memory), mask)
        return self.norm(x).view(batch, captions, length, -1)

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: list[tuple[torch.Tensor, torch.Tensor]],
        cache: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """One decoding step of B * K rows.

        tokens : int64 [B, K]
        position : int64 []
        ancestry : bool [B, K, S], which of the S cache slots are a row's own past
        memory : a pair a layer, as :meth:`DecoderLayer.memory` gives it
        cache : keys and values of every slot a layer, [B, S, d] each

        Returns logits [B, K, V] and this step's key and value rows a layer, [B, K, d] each.
        """
        beams = tokens.shape[1]
        own = torch.eye(beams, dtype=torch.bool).expand(tokens.shape[0], beams, beams)
        mask = torch.where(torch.cat([ancestry, own], 2), 0.0, -1e9)[:, None]
        x = self._embed(tokens, self.position[position])
        appended = []
        for layer, layer_memory, layer_cache in zip(self.layers(), memory, cache, strict=True):
            x, key, value = layer.step(x, layer_memory, layer_cache, mask)
            appended.append((key, value))
        return self.logits(self.norm(x)), appended

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., V]; the output matrix is the embedding (Press and Wolf 2017)."""
        return F.linear(hidden, self.embed.weight)

    def _embed(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return self.embed(tokens) + position


def _fold_channels(x: torch.Tensor) -> torch.Tensor:
    """[B, C, 14, 14] -> [B, 49, 4 * C]: every grid cell's four positions side by side."""
    return F.pixel_unshuffle(x, 2).flatten(2).transpose(1, 2)


def _fold_colours(x: torch.Tensor) -> torch.Tensor:
    """[B, 28, 28, 3] -> [B, 49, 48]."""
    side = COLOUR_GRID // GRID
    x = x.reshape(x.shape[0], GRID, side, GRID, side, 3).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(x.shape[0], GRID * GRID, side * side * 3)
