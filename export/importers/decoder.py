"""The text half of imported captioners: one Transformer decoder that runs a step of B * K rows.

GPT-2 (norms before the layers), BERT and what descends from it (norms after them), with
cross-attention over the picture or with the picture as the first words, are all this one module:
each family fills it with its weights. What it does at a step is laid out for a CPU: one product for
query, key and value; the scale is in the query's weights; what depends on the picture alone comes
from the encoder's graph with its keys transposed already; neither caches nor memory are joined,
their scores are.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.base import Named, Step
from edgecap.training.models.layers import split_heads

UNSEEN = -1e9
Activation = Callable[[torch.Tensor], torch.Tensor]
Memory = tuple[torch.Tensor, torch.Tensor]  # keys [B, h, d / h, N] and values [B, h, N, d / h]


class Dense(nn.Module):
    """[..., in] -> [..., out]. The matrix is [in, out], as ONNX multiplies it: no transpose."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().float().contiguous(), requires_grad=False)
        self.bias = None
        if bias is not None:
            self.bias = nn.Parameter(bias.detach().float().contiguous(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.weight
        return y if self.bias is None else y + self.bias

    def columns(self, start: int, end: int, scale: float = 1.0) -> Dense:
        """Some of the outputs, scaled."""
        bias = None if self.bias is None else self.bias[start:end] * scale
        return Dense(self.weight[:, start:end] * scale, bias)


def dense(layer: Any) -> Dense:
    """A copy of ``nn.Linear``, or of transformers' ``Conv1D``, whose matrix is [in, out]."""
    linear = isinstance(layer, nn.Linear)
    return Dense(layer.weight.T if linear else layer.weight, layer.bias)


def side_by_side(*parts: Dense) -> Dense:
    """One layer that gives what ``parts`` give, one after another."""
    biases = [torch.zeros(p.weight.shape[1]) if p.bias is None else p.bias for p in parts]
    return Dense(torch.cat([part.weight for part in parts], 1), torch.cat(biases))


def activation(name: str) -> Activation:
    """An activation by transformers' name of it."""
    from transformers.activations import ACT2FN

    if name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast"):
        return _gelu_tanh
    if name not in ACT2FN:
        raise DataError(f"the decoder's activation {name!r} is none that transformers knows")
    return cast(Activation, ACT2FN[name])


def _gelu_tanh(x: torch.Tensor) -> torch.Tensor:
    """In the order of operations that ONNX Runtime joins to one."""
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))
    return 0.5 * x * (1.0 + torch.tanh(inner))


class Cross(nn.Module):
    """Attention over the picture. query : scaled already; keys_values : one product for both"""

    def __init__(self, query: Dense, keys_values: Dense, out: Dense, norm: nn.Module) -> None:
        super().__init__()
        self.query, self.keys_values, self.out, self.norm = query, keys_values, out, norm

    def memory(self, tokens: torch.Tensor, heads: int) -> Memory:
        """Computed once a picture, from tokens [B, N, D]."""
        keys, values = self.keys_values(tokens).chunk(2, -1)
        return split_heads(keys, heads).transpose(2, 3), split_heads(values, heads)


class Layer(nn.Module):
    """Self-attention, attention over the picture where there is one, feed-forward.

    qkv : query (scaled), key and value
    norms : of the self-attention and of the feed-forward
    before : whether norms stand before what they belong to (GPT-2) or after it (BERT)
    """

    def __init__(
        self,
        heads: int,
        qkv: Dense,
        out: Dense,
        cross: Cross | None,
        up: Dense,
        down: Dense,
        act: Activation,
        norms: tuple[nn.Module, nn.Module],
        *,
        before: bool,
    ) -> None:
        super().__init__()
        self.heads, self.before, self.act = heads, before, act
        self.qkv, self.out, self.cross, self.up, self.down = qkv, out, cross, up, down
        self.norm1, self.norm2 = norms

    def step(
        self,
        x: torch.Tensor,
        memory: Memory | None,
        cache: tuple[torch.Tensor, torch.Tensor],
        unseen: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One token a row: x [B * K, d], cache [B, S, d] twice, unseen [B, 1, K, S] added to the
        scores of the slots. Returns x and this step's key and value rows [B * K, d]."""
        q, k, v = self.qkv(self.norm1(x) if self.before else x).chunk(3, -1)
        heads, side = self.heads, (unseen.shape[0], unseen.shape[2])
        query, key, value = (split_heads(_apart(part, side), heads) for part in (q, k, v))
        prefix = memory if self.cross is None else None
        scores = [query @ prefix[0]] if prefix else []
        scores.append(query @ split_heads(cache[0], heads).transpose(2, 3) + unseen)
        scores.append((query * key).sum(-1, keepdim=True))
        weights = torch.cat(scores, -1).softmax(-1)
        seen, slots = prefix[0].shape[3] if prefix else 0, cache[0].shape[1]
        mixed = weights[..., seen : seen + slots] @ split_heads(cache[1], heads)
        mixed = mixed + weights[..., seen + slots :] * value
        if prefix:
            mixed = mixed + weights[..., :seen] @ prefix[1]
        x = x + self.out(_join(mixed).reshape(x.shape))
        x = x if self.before else self.norm1(x)
        if self.cross is not None and memory is not None:
            query = self.cross.query(self.cross.norm(x) if self.before else x)
            weights = (split_heads(_apart(query, side), heads) @ memory[0]).softmax(-1)
            x = x + self.cross.out(_join(weights @ memory[1]).reshape(x.shape))
            x = x if self.before else self.cross.norm(x)
        return self._feed(x), k, v

    def read(
        self, x: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Whole sequences x [B, P, d], mask [P, P] additive -> x, and keys and values for ``step``,
        as memory. For pictures that are the first words."""
        q, k, v = self.qkv(self.norm1(x) if self.before else x).chunk(3, -1)
        query, keys, values = (split_heads(part, self.heads) for part in (q, k, v))
        keys = keys.transpose(2, 3)
        scores = query @ keys
        weights = (scores if mask is None else scores + mask).softmax(-1)
        x = x + self.out(_join(weights @ values))
        return self._feed(x if self.before else self.norm1(x)), keys, values

    def _feed(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.down(self.act(self.up(self.norm2(x) if self.before else x)))
        return x if self.before else self.norm2(x)


def _apart(x: torch.Tensor, side: tuple[int, int]) -> torch.Tensor:
    """Rows [B * K, d] -> [B, K, d]."""
    return x.view(*side, x.shape[1])


def _join(x: torch.Tensor) -> torch.Tensor:
    """[B, h, L, d / h] -> [B, L, d]."""
    return x.transpose(1, 2).flatten(2)


class Decoder(nn.Module):
    """Words to logits.

    words : float [V, d]
    places : float [P, d], what is added to the word at each position
    layers : all with cross-attention, or none: then ``memory`` reads the picture as a prefix
    norm_words, norm : norms after the embedding and after the last layer
    transform : what stands between the last layer and the head
    head : float [V, d] and float [V]; the words' own matrix where None
    offset : the position of the first token
    """

    def __init__(
        self,
        words: torch.Tensor,
        places: torch.Tensor,
        layers: list[Layer],
        *,
        norm_words: nn.Module | None = None,
        norm: nn.Module | None = None,
        transform: nn.Module | None = None,
        head: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
        offset: int = 0,
    ) -> None:
        super().__init__()
        self.words = nn.Parameter(words.detach().float(), requires_grad=False)
        self.places = nn.Parameter(places.detach().float(), requires_grad=False)
        self.layers = nn.ModuleList(layers)
        self.norm_words = norm_words or nn.Identity()
        self.norm, self.transform = norm or nn.Identity(), transform or nn.Identity()
        tied = head is None or torch.equal(head, words)
        self.head = None if tied or head is None else nn.Parameter(head.detach().float(), False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), False)
        self.offset = offset

    @property
    def vocab_size(self) -> int:
        return self.words.shape[0]

    @property
    def positions(self) -> int:
        """The longest caption that there are positions for."""
        return self.places.shape[0] - self.offset

    def all_layers(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def memory(self, tokens: torch.Tensor) -> Named:
        """key.i and value.i of every layer that attends over the picture's tokens [B, N, D]."""
        named: Named = {}
        for i, layer in enumerate(self.all_layers()):
            assert layer.cross is not None
            found = layer.cross.memory(tokens, layer.heads)
            named[f"key.{i}"], named[f"value.{i}"] = found
        return named

    def read(self, prefix: torch.Tensor, mask: torch.Tensor | None = None) -> Named:
        """key.i and value.i of every layer for a prefix [B, P, d] that the words come after."""
        named: Named = {}
        for i, layer in enumerate(self.all_layers()):
            prefix, named[f"key.{i}"], named[f"value.{i}"] = layer.read(prefix, mask)
        return named

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        cache: Named,
    ) -> Step:
        """See ``CaptionModel.step``. memory["first"] [B, d], where it is there, stands for the
        first token's embedding."""
        unseen = torch.where(ancestry, 0.0, UNSEEN)[:, None]
        words = F.embedding(tokens, self.words)
        if "first" in memory:
            words = torch.where(position == 0, memory["first"][:, None], words)
        # Rows are flat but for attention, so that every product takes its bias along.
        x = self.norm_words(words + self.places[position + self.offset]).flatten(0, 1)
        append: Named = {}
        for i, layer in enumerate(self.all_layers()):
            key, value = f"key.{i}", f"value.{i}"
            x, append[key], append[value] = layer.step(
                x, (memory[key], memory[value]), (cache[key], cache[value]), unseen
            )
        side = (tokens.shape[0], tokens.shape[1])
        found = {name: _apart(rows, side) for name, rows in append.items()}
        return Step(_apart(self.logits(self.norm(x)), side), {}, found)

    def cache_widths(self) -> dict[str, int]:
        layers = range(len(self.layers))
        return {f"{p}.{i}": self.words.shape[1] for i in layers for p in ("key", "value")}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., V]."""
        head = self.words if self.head is None else self.head
        return F.linear(self.transform(hidden), head, self.bias)


def norm_of(module: nn.Module) -> nn.Module:
    """A copy of a norm: the source stays as it is."""
    return copy.deepcopy(module)
