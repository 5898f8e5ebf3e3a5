"""CLIP and GPT: a picture's vector becomes the first words of a language model (ClipCap).

Source: "ClipCap: CLIP Prefix for Image Captioning" (Mokady et al. 2021). A mapper turns the pooled
vector of the encoder, with ``clip-vision`` the one that CLIP compares with texts, into P word
embeddings; GPT-2 goes on from there. BOS follows the prefix, as the beginning of a text.

The prefix is read once a picture: the memory is its keys and values in every layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.base import CaptionModel, Decoded, Encoding, Named, Step
from edgecap.training.models.encoders.base import Frozen, ImageEncoder
from edgecap.training.models.gpt2 import Gpt2, Gpt2Sizes, Rows, sizes_of
from edgecap.training.models.prefix import MlpMapper, TransformerMapper
from edgecap.training.models.published import read_config, read_state
from edgecap.training.vocabulary import BOS, EOS

MAPPERS = ("mlp", "transformer")
UNSEEN = -1e9


@dataclass(frozen=True)
class ClipGptOptions:
    """gpt : weights to start GPT-2 from, a file, a folder or a hub id; its sizes are read from the
        ``config.json`` beside them. Once loaded it is empty and ``started_from`` says where from
    tune_gpt : train GPT-2, too; without it the mapper alone is trained
    tune_words : train the embedding of the words; None is with GPT-2, and where the vocabulary is
        not GPT-2's
    bos, eos : ids that get the row of <|endoftext|>, where the vocabulary is GPT-2's behind our
        special tokens
    """

    vocab_size: int
    mapper: str = "mlp"  # or "transformer"
    prefix: int = 10  # P
    mapper_tokens: int = 10  # of the Transformer mapper, as are the next two
    mapper_layers: int = 8
    mapper_heads: int = 8
    gpt: str = ""
    tune_gpt: bool = True
    tune_words: bool | None = None
    width: int = 768  # d
    layers: int = 12
    heads: int = 12
    norm_eps: float = 1e-5
    max_positions: int = 20  # T, EOS counted
    dropout: float = 0.1
    bos: int = BOS
    eos: int = EOS
    started_from: str = ""

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "prefix", "mapper_tokens", "mapper_layers", "mapper_heads")
        for name in (*sizes, "width", "layers", "heads", "max_positions"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)!r}; give 1 or more")
        if self.mapper not in MAPPERS:
            raise DataError(f"mapper is {self.mapper!r}; give one of {', '.join(MAPPERS)}")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout!r}; give 0 or more, below 1")
        for name in ("heads", "mapper_heads") if self.mapper == "transformer" else ("heads",):
            if self.width % getattr(self, name) and not self.gpt:
                raise DataError(
                    f"{name} is {getattr(self, name)}; give a divisor of width, {self.width}"
                )
        if not (self.tune_gpt or self.gpt or self.started_from):
            raise DataError("tune_gpt is off but GPT-2 has no weights; name them in gpt")


class ClipGpt(CaptionModel):
    """uint8 pictures to captions; see the module's docstring."""

    family = "clip-gpt"
    options: ClipGptOptions

    def __init__(self, options: ClipGptOptions, backbone: ImageEncoder) -> None:
        source = options.gpt
        if source:
            # Checked again by replace: the width that counts is the one of the weights.
            options = replace(
                options, gpt="", started_from=source, **sizes_of(read_config(source), source)
            )
        super().__init__(options, backbone)
        o = options
        self.gpt = Gpt2(
            Gpt2Sizes(
                vocab_size=o.vocab_size,
                positions=o.prefix + o.max_positions,
                width=o.width,
                layers=o.layers,
                heads=o.heads,
                dropout=o.dropout,
                norm_eps=o.norm_eps,
            )
        )
        self.mapper: nn.Module
        if o.mapper == "mlp":
            self.mapper = MlpMapper(backbone.features, o.width, o.prefix)
        else:
            self.mapper = TransformerMapper(
                backbone.features,
                o.width,
                o.prefix,
                o.mapper_tokens,
                o.mapper_layers,
                o.mapper_heads,
                o.dropout,
            )
        if source:
            known = self.gpt.load_published(read_state(source), source, (o.bos, o.eos))
            if o.tune_words is None:
                self.options = replace(o, tune_words=o.tune_gpt or not known)
        self.gpt.requires_grad_(o.tune_gpt)
        tune_words = self.options.tune_words
        self.gpt.wte.requires_grad_(o.tune_gpt if tune_words is None else tune_words)
        # A pooled vector is a hundredth of the maps: with nothing to train it alone is cached.
        self.pooled_alone = not any(True for _ in backbone.tuned_parameters())

    @property
    def own_frozen_half(self) -> bool:
        return self.pooled_alone

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        """The pooled vector [B, F] alone where all of the backbone is frozen."""
        found = self.backbone.frozen(pixels)
        if not self.pooled_alone:
            return found
        with torch.no_grad():
            return (self.backbone(found).pooled,)

    def encode(self, frozen: Frozen) -> Encoding:
        """memory: key.i and value.i [B, P, d] of every layer, what GPT-2 makes of the prefix."""
        pooled = frozen[0] if self.pooled_alone else self.backbone(frozen).pooled
        prefix = self.mapper(pooled)
        positions = torch.arange(self.options.prefix, device=prefix.device)
        mask = torch.where(_earlier(positions, 1), 0.0, UNSEEN)
        _, rows = self.gpt.blocks(prefix, positions, None, mask)
        memory: Named = {}
        for i, (keys, values) in enumerate(rows):
            memory[f"key.{i}"], memory[f"value.{i}"] = keys, values
        return Encoding(memory, {}, pooled)

    def decode(
        self, encoding: Encoding, tokens: torch.Tensor, *, attention: bool = False
    ) -> Decoded:
        """The C captions of a picture are one row of words behind its prefix, none seeing another.

        There are no places to look at, so ``attention`` changes nothing.
        """
        batch, captions, length = tokens.shape
        positions = torch.arange(length, device=tokens.device)
        seen = _earlier(positions, captions)
        seen = torch.cat([seen.new_ones(len(seen), self.options.prefix), seen], 1)
        x, _ = self.gpt.blocks(
            self.gpt.wte(tokens.reshape(batch, -1)),
            positions.repeat(captions) + self.options.prefix,
            [_rows(encoding.memory, i) for i in range(self.options.layers)],
            torch.where(seen, 0.0, UNSEEN),
        )
        return Decoded(self.gpt.ln_f(x).view(batch, captions, length, -1))

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step:
        batch, beams = tokens.shape
        prefix = ancestry.new_ones(batch, beams, self.options.prefix)
        own = torch.eye(beams, dtype=torch.bool, device=tokens.device)
        seen = torch.cat([prefix, ancestry, own.expand(batch, beams, beams)], 2)
        mask = torch.where(seen, 0.0, UNSEEN)[:, None]
        past: list[Rows] = []
        for i in range(self.options.layers):
            (k0, v0), (k1, v1) = _rows(memory, i), _rows(cache, i)
            past.append((torch.cat([k0, k1], 1), torch.cat([v0, v1], 1)))
        x, rows = self.gpt.blocks(self.gpt.wte(tokens), position + self.options.prefix, past, mask)
        append: Named = {}
        for i, (keys, values) in enumerate(rows):
            append[f"key.{i}"], append[f"value.{i}"] = keys, values
        return Step(self.logits(self.gpt.ln_f(x)), {}, append)

    def cache_widths(self) -> dict[str, int]:
        layers = range(self.options.layers)
        return {f"{part}.{i}": self.options.width for i in layers for part in ("key", "value")}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.gpt.logits(hidden)


def _earlier(positions: torch.Tensor, captions: int) -> torch.Tensor:
    """bool [C * L, C * L]: whether a word sees another, in the same caption and no later."""
    length = len(positions)
    caption = torch.arange(captions, device=positions.device).repeat_interleave(length)
    places = positions.repeat(captions)
    return (caption[:, None] == caption) & (places[:, None] >= places)


def _rows(named: Named, layer: int) -> Rows:
    return named[f"key.{layer}"], named[f"value.{layer}"]
