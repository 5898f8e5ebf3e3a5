"""Image Transformer captioner; the family of the default model.

Self-attention layers over one token a place and one global token, then a Transformer decoder with
cross-attention (Vaswani et al. 2017; pre-norm). A place's token is the sum of linear projections of
every map that the encoder gives; with the encoder ``patches`` it is the picture cut into patches
(Dosovitskiy et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import OptionsError
from edgecap.training.models.base import CaptionModel, Decoded, Encoding, Named, Step
from edgecap.training.models.encoders.base import Frozen, ImageEncoder
from edgecap.training.models.layers import (
    FastDropout,
    FeedForward,
    attend,
    attend_self,
    attention_weights,
    split_heads,
)


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

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise OptionsError(
                f"width is {self.width} and heads {self.heads}; give a width that is a multiple of "
                "the heads"
            )


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
        self,
        x: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        mask: torch.Tensor,
        seen: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Teacher forcing: x [B * C, L, d] for C captions an image, mask [L, L] additive. ``seen``
        gets this layer's cross-attention [B, C * L, N], the mean over heads."""
        rows, length, d = x.shape
        batch = keys.shape[0]
        attended = attend_self(self.qkv(self.norm1(x)), self.heads, mask)
        x = x + self.dropout(self.self_out(attended))
        # The captions of one image share its memory: fold them into the query length.
        q = self.cross_q(self.norm2(x)).view(batch, -1, d)
        if seen is not None:
            seen.append(attention_weights(q, keys, self.heads).mean(1))
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


class ImageTransformer(CaptionModel):
    """uint8 pictures to captions; see the module's docstring."""

    family = "image-transformer"
    options: ImageTransformerOptions

    def __init__(self, options: ImageTransformerOptions, backbone: ImageEncoder) -> None:
        super().__init__(options, backbone)
        d = options.width
        self.project = nn.ModuleDict({n: nn.Linear(c, d) for n, c in backbone.widths.items()})
        self.project_pooled = nn.Linear(backbone.features, d)
        self.place = nn.Parameter(torch.randn(backbone.places + 1, d) * 0.1)
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

    def encode(self, frozen: Frozen) -> Encoding:
        """memory: key.i [B, h, d / h, N + 1] and value.i [B, h, N + 1, d / h] of every layer."""
        features = self.backbone(frozen)
        x = sum(layer(features.maps[name]) for name, layer in self.project.items())
        x = torch.cat([x, self.project_pooled(features.pooled)[:, None]], 1) + self.place
        x = self.input_dropout(x)
        for layer in self.encoder:
            x = layer(x)
        x = self.memory_norm(x)
        memory: Named = {}
        for i, decoder in enumerate(self.layers()):
            memory[f"key.{i}"], memory[f"value.{i}"] = decoder.memory(x)
        return Encoding(memory, {}, features.pooled)

    def decode(
        self, encoding: Encoding, tokens: torch.Tensor, *, attention: bool = False
    ) -> Decoded:
        batch, captions, length = tokens.shape
        x = self._embed(tokens.reshape(-1, length), self.position[:length])
        mask = torch.full((length, length), -1e9, dtype=x.dtype, device=x.device).triu(1)
        x = self.input_dropout(x)
        seen: list[torch.Tensor] | None = [] if attention else None
        for i, layer in enumerate(self.layers()):
            memory = encoding.memory
            x = layer(x, memory[f"key.{i}"], memory[f"value.{i}"], mask, seen)
        hidden = self.norm(x).view(batch, captions, length, -1)
        if not seen:
            return Decoded(hidden)
        # The global token is no place; what is left is shown as shares of the places.
        weights = torch.stack(seen).mean(0).view(batch, captions, length, -1)[..., :-1]
        return Decoded(hidden, weights / weights.sum(-1, keepdim=True))

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step:
        beams = tokens.shape[1]
        own = torch.eye(beams, dtype=torch.bool, device=tokens.device)
        own = own.expand(tokens.shape[0], beams, beams)
        mask = torch.where(torch.cat([ancestry, own], 2), 0.0, -1e9)[:, None]
        x = self._embed(tokens, self.position[position])
        append: Named = {}
        for i, layer in enumerate(self.layers()):
            key, value = f"key.{i}", f"value.{i}"
            x, append[key], append[value] = layer.step(
                x, (memory[key], memory[value]), (cache[key], cache[value]), mask
            )
        return Step(self.logits(self.norm(x)), {}, append)

    def cache_widths(self) -> dict[str, int]:
        layers = range(self.options.decoder_layers)
        return {f"{part}.{i}": self.options.width for i in layers for part in ("key", "value")}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The output matrix is the embedding (Press and Wolf 2017)."""
        return F.linear(hidden, self.embed.weight)

    def _embed(self, tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        embedded: torch.Tensor = self.embed(tokens)
        return embedded + position
