"""What every importer gives: a captioner ready for its two graphs, and the source's own answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from edgecap.export.importers.decoder import Decoder
from edgecap.runtime.errors import DataError
from edgecap.runtime.image import RGB
from edgecap.runtime.manifest import DecodingDefaults, ImageSpec, TokenizerSpec
from edgecap.training.models.base import Encoding, Named, Step
from edgecap.training.models.encoders.base import Frozen

# Photographs, uint8 RGB [H, W, 3] of any size, and K -> the tokens of each one's best caption, EOS
# included where it ended, the start token not.
Reference = Callable[[Sequence[RGB], int], list[list[int]]]


@dataclass(frozen=True)
class Sizes:
    """vocab_size : V; max_positions : T, the longest caption in tokens, EOS counted"""

    vocab_size: int
    max_positions: int


class ImportedModel(nn.Module):
    """uint8 pictures to captions; satisfies ``edgecap.export.graphs.Exportable``.

    vision : uint8 [B, S, S, 3] -> tokens [B, N, D] and one vector a picture [B, F]
    remember : tokens [B, N, D] and vectors [B, F] -> the decoder's memory, name -> [B, ...]
    """

    def __init__(
        self,
        vision: nn.Module,
        remember: nn.Module,
        decoder: Decoder,
        image_size: int,
        max_positions: int,
    ) -> None:
        super().__init__()
        self.vision, self.remember, self.decoder = vision, remember, decoder
        self.image_size = image_size
        self.options = Sizes(decoder.vocab_size, max_positions)
        self.requires_grad_(False)
        self.eval()

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        """Tokens [B, N, D] and vectors [B, F] of uint8 [B, S, S, 3] RGB."""
        found: Frozen = self.vision(pixels)
        return found

    def encode(self, frozen: Frozen) -> Encoding:
        tokens, pooled = frozen
        return Encoding(self.remember(tokens, pooled), {}, pooled)

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step:
        """See ``CaptionModel.step``."""
        return self.decoder.step(tokens, position, ancestry, memory, cache)

    def cache_widths(self) -> dict[str, int]:
        return self.decoder.cache_widths()

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """[..., d] -> [..., V]."""
        return self.decoder.logits(hidden)


class CrossMemory(nn.Module):
    """Keys and values of the picture's tokens for a decoder with cross-attention."""

    def __init__(self, decoder: Decoder, project: nn.Module | None = None) -> None:
        super().__init__()
        self.decoder, self.project = decoder, project or nn.Identity()

    def forward(self, tokens: torch.Tensor, pooled: torch.Tensor) -> Named:
        return self.decoder.memory(self.project(tokens))


@dataclass(frozen=True)
class Imported:
    """A captioner made elsewhere, ready for export.

    name, family : what the manifest says; family such as "vit-gpt2"
    model : satisfies ``edgecap.export.graphs.Exportable``; float32, on the CPU
    tokenizer_json : a file of the ``tokenizers`` package that decodes as the source does
    tokenizer : the ids with a meaning; bos is what the decoder starts from and may equal eos
    image : how photographs become ``model``'s pixels
    decoding : the source's own generation settings
    licence : as the source states it, empty where it does not
    reference : what the source itself says of photographs, by transformers' ``generate`` through
        its own image processor: ``reference(pictures, beams)``
    notes : what a user should know of settings that have no meaning here, a line each
    """

    name: str
    family: str
    model: ImportedModel
    tokenizer_json: bytes
    tokenizer: TokenizerSpec
    image: ImageSpec
    decoding: DecodingDefaults
    licence: str
    reference: Reference
    notes: tuple[str, ...] = ()


def try_one_picture(model: ImportedModel, source: str) -> None:
    """Encode a black picture; raises DataError where network and preprocessing contradict."""
    size = model.image_size
    try:
        with torch.no_grad():
            model.encode(model.frozen(torch.zeros(1, size, size, 3, dtype=torch.uint8)))
    except (ValueError, RuntimeError) as error:
        line = " ".join(str(error).split())[:200]
        raise DataError(
            f"{source} does not take the {size} x {size} pixels that its preprocessor_config.json "
            f"gives: {line}"
        ) from None


def until_end(tokens: Sequence[int], eos: int) -> list[int]:
    """Tokens up to the first EOS, that one included."""
    found = [int(token) for token in tokens]
    return found[: found.index(eos) + 1] if eos in found else found


Net = Any  # a transformers model: the package has no types
