"""What the families share: from the parts of a source to :class:`Imported`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecap.export.importers.base import (
    Imported,
    ImportedModel,
    Reference,
    try_one_picture,
    until_end,
)
from edgecap.export.importers.decoder import Decoder
from edgecap.export.importers.pixels import Normalise
from edgecap.export.importers.source import Source
from edgecap.export.importers.words import (
    Generation,
    read_tokenizer,
    reference_config,
    tokenizer_spec,
)
from edgecap.runtime.image import RGB
from edgecap.runtime.manifest import ImageSpec
from edgecap.training.models.encoders.base import Frozen
from edgecap.training.models.encoders.transformers_encoder import need_transformers, quiet

# Normalised pictures [1, 3, S, S] and a GenerationConfig -> token ids, the start token left out.
Generate = Callable[[torch.Tensor, Any], torch.Tensor]


class Vision(nn.Module):
    """uint8 [B, S, S, 3] -> a transformers encoder's tokens [B, N, D] and one vector [B, D].

    mean : the vector is the mean of the tokens, else it is the first one
    """

    def __init__(self, normalise: Normalise, net: nn.Module, *, mean: bool = False) -> None:
        super().__init__()
        self.normalise, self.net, self.mean = normalise, net, mean

    def forward(self, pixels: torch.Tensor) -> Frozen:
        tokens = self.net(pixel_values=self.normalise(pixels)).last_hidden_state
        return tokens, tokens.mean(1) if self.mean else tokens[:, 0]


def assemble(
    source: Source,
    family: str,
    *,
    vision: nn.Module,
    remember: nn.Module,
    decoder: Decoder,
    image: ImageSpec,
    processor: Any,
    generation: Generation,
    config: Any,
    generate: Generate,
    words: Path | None = None,
) -> Imported:
    """config : the ``GenerationConfig`` that ``generate`` uses; words : the tokenizer's folder, the
    source's own where None"""
    longest = generation.decoding.max_new_tokens
    model = ImportedModel(vision, remember, decoder, image.size, longest)
    try_one_picture(model, source.given)
    tokenizer = source.tokenizer(words)
    vocab = decoder.vocab_size
    return Imported(
        name=source.name,
        family=family,
        model=model,
        tokenizer_json=read_tokenizer(tokenizer, generation, vocab, source.given),
        tokenizer=tokenizer_spec(tokenizer, generation, vocab),
        image=image,
        decoding=generation.decoding,
        licence=source.licence(),
        reference=_reference(processor, generation, config, generate),
        notes=(*_where(source), *generation.notes),
    )


def _where(source: Source) -> tuple[str, ...]:
    if not source.branch:
        return ()
    return (
        f"{source.given} has no safetensors on its main branch; this is {source.branch}, the hub's "
        "own conversion",
    )


def _reference(
    processor: Any, generation: Generation, config: Any, generate: Generate
) -> Reference:
    transformers = need_transformers("import")

    def reference(pictures: Sequence[RGB], beams: int) -> list[list[int]]:
        wanted = reference_config(config, generation.decoding, beams)
        said = []
        # One by one: what a picture says must not depend on the others of its batch.
        for picture in pictures:
            pixels = processor(picture, input_data_format="channels_last", return_tensors="pt")
            with torch.no_grad(), quiet(transformers.logging):
                tokens = generate(pixels["pixel_values"], wanted)[0]
            said.append(until_end(tokens.tolist(), generation.eos))
        return said

    return reference
