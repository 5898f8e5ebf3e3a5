"""GPT-2 (Radford et al. 2019): a stack of causal Transformer blocks over words.

One function, ``blocks``, reads a prefix, whole captions and single steps alike: what differs is
which keys and values came before, and the mask that says who sees whom. Parameter names are those
of the published weights, so they load by name; their matrices are stored the other way round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.layers import FastDropout, attend, split_heads
from edgecap.training.models.published import match

Rows = tuple[torch.Tensor, torch.Tensor]  # keys and values of one layer, [B, N, d] each


@dataclass(frozen=True)
class Gpt2Sizes:
    vocab_size: int  # V
    positions: int  # the longest prefix and caption together
    width: int = 768  # d
    layers: int = 12
    heads: int = 12
    dropout: float = 0.1
    norm_eps: float = 1e-5


class Attention(nn.Module):
    def __init__(self, sizes: Gpt2Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.c_attn = nn.Linear(sizes.width, 3 * sizes.width)
        self.c_proj = nn.Linear(sizes.width, sizes.width)

    def forward(
        self, x: torch.Tensor, past: Rows | None, mask: torch.Tensor
    ) -> tuple[torch.Tensor, Rows]:
        q, k, v = self.c_attn(x).chunk(3, -1)
        rows = (torch.cat([past[0], k], 1), torch.cat([past[1], v], 1)) if past else (k, v)
        keys, values = (split_heads(part, self.heads) for part in rows)
        attended = attend(q, keys.transpose(2, 3), values, self.heads, mask)
        return self.c_proj(attended), (k, v)


class Mlp(nn.Module):
    def __init__(self, sizes: Gpt2Sizes) -> None:
        super().__init__()
        self.c_fc = nn.Linear(sizes.width, 4 * sizes.width)
        self.c_proj = nn.Linear(4 * sizes.width, sizes.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm causal self-attention and feed-forward."""

    def __init__(self, sizes: Gpt2Sizes) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(sizes.width, eps=sizes.norm_eps)
        self.attn = Attention(sizes)
        self.ln_2 = nn.LayerNorm(sizes.width, eps=sizes.norm_eps)
        self.mlp = Mlp(sizes)
        self.dropout = FastDropout(sizes.dropout)

    def forward(
        self, x: torch.Tensor, past: Rows | None, mask: torch.Tensor
    ) -> tuple[torch.Tensor, Rows]:
        """x [B, M, d], past [B, N, d] twice, mask additive [..., M, N + M] -> x, its own rows."""
        attended, rows = self.attn(self.ln_1(x), past, mask)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.ln_2(x))), rows


class Gpt2(nn.Module):
    """Token ids or embeddings to hidden states; ``logits`` reads words from them."""

    def __init__(self, sizes: Gpt2Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.wte = nn.Embedding(sizes.vocab_size, sizes.width)
        self.wpe = nn.Embedding(sizes.positions, sizes.width)
        self.dropout = FastDropout(sizes.dropout)
        self.h = nn.ModuleList(Block(sizes) for _ in range(sizes.layers))
        self.ln_f = nn.LayerNorm(sizes.width, eps=sizes.norm_eps)
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):  # two of them add up in every layer
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * sizes.layers))
            elif parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def blocks(
        self,
        embedded: torch.Tensor,
        positions: torch.Tensor,
        past: list[Rows] | None,
        mask: torch.Tensor,
    ) -> tuple[torch.Tensor, list[Rows]]:
        """Run every block.

        embedded : [B, M, d], without positions
        positions : int64, of any shape whose embedding adds to ``embedded``
        past : of every layer what came before, [B, N, d] twice; None is nothing, N = 0
        mask : added to the scores, [..., M, N + M]

        Returns hidden states [B, M, d] before the last norm, and every layer's new rows.
        """
        x = self.dropout(embedded + self.wpe(positions))
        rows = []
        for i, block in enumerate(self.h):
            x, own = block(x, past[i] if past else None, mask)
            rows.append(own)
        return x, rows

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., V]; the output matrix is the embedding."""
        return F.linear(hidden, self.wte.weight)

    def load_published(
        self, state: dict[str, torch.Tensor], weights: str, specials: tuple[int, ...] = ()
    ) -> bool:
        """Load published weights of ``n_embd``, ``n_layer`` as built, of at least its positions.

        specials : ids of ours that stand before GPT-2's own, where V is that much larger; the ones
            that begin and end a text get the row of <|endoftext|>

        Returns whether the words are GPT-2's, too; else their rows stay at random start.
        Raises DataError where a tensor is missing or has another shape.
        """
        state = {name.removeprefix("transformer."): value for name, value in state.items()}
        wanted = self.state_dict()
        given = {}
        for name in wanted:
            value = state.get(name)
            if value is None:
                continue
            # The published matrices are [in, out].
            if value.ndim == 2 and not name.startswith(("wte", "wpe")):
                value = value.T
            given[name] = value.float()
        own_words = False
        if "wpe.weight" in given:
            given["wpe.weight"] = given["wpe.weight"][: self.sizes.positions]
        if "wte.weight" in given and given["wte.weight"].shape[1] == self.sizes.width:
            rows = _word_rows(given["wte.weight"], self.sizes.vocab_size, specials)
            own_words = rows is not None
            given["wte.weight"] = wanted["wte.weight"] if rows is None else rows
        self.load_state_dict(match(given, wanted, weights))
        return own_words


def _word_rows(
    published: torch.Tensor, vocab_size: int, specials: tuple[int, ...]
) -> torch.Tensor | None:
    """GPT-2's rows for our vocabulary [V, d]; None where it is another one."""
    extra = vocab_size - len(published)
    if extra == 0:
        return published
    if not specials or extra <= max(specials) or extra > 16:
        return None
    front = published.mean(0).repeat(extra, 1)
    front[list(specials)] = published[-1]
    return torch.cat([front, published])


def sizes_of(config: dict[str, Any], weights: str) -> dict[str, Any]:
    """Options that a published ``config.json`` settles. Raises DataError for an unlike network."""
    unlike = {
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
        "model_type": ("gpt2",),
    }
    for key, accepted in unlike.items():
        if config.get(key, accepted[0]) not in accepted:
            raise DataError(f"{weights} is no GPT-2 as published: {key} is {config[key]!r}")
    if config.get("n_inner") not in (None, 4 * config.get("n_embd", 0)):
        raise DataError(f"{weights} is no GPT-2 as published: n_inner is {config['n_inner']}")
    keys = {
        "width": "n_embd",
        "layers": "n_layer",
        "heads": "n_head",
        "norm_eps": "layer_norm_epsilon",
    }
    return {name: config[key] for name, key in keys.items() if key in config}
