"""GIT (Wang et al. 2022): transformers' ``GitForCausalLM``. The picture's tokens are the first
words; they see each other and no word, so what they are is computed once a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgecap.export.importers.assemble import Vision, assemble
from edgecap.export.importers.base import Imported
from edgecap.export.importers.bert import bert_layers
from edgecap.export.importers.decoder import Decoder, norm_of
from edgecap.export.importers.pixels import read_preprocessing
from edgecap.export.importers.source import Source
from edgecap.export.importers.words import read_generation
from edgecap.runtime.errors import DataError
from edgecap.training.models.base import Named
from edgecap.training.models.encoders.transformers_encoder import need_transformers


class PrefixMemory(nn.Module):
    """The picture's tokens, projected and read as a prefix: keys and values of every layer."""

    def __init__(self, decoder: Decoder, project: nn.Module) -> None:
        super().__init__()
        self.decoder, self.project = decoder, project

    def forward(self, tokens: torch.Tensor, pooled: torch.Tensor) -> Named:
        return self.decoder.read(self.project(tokens))


def load(source: Source) -> Imported:
    """Raises DataError for the models that caption videos."""
    if source.config.get("num_image_with_embedding") is not None:
        raise DataError(
            f"{source.given} captions videos (num_image_with_embedding is set); give a GIT that "
            "captions pictures"
        )
    transformers = need_transformers("import")
    net = source.load(transformers.GitForCausalLM, attn_implementation="eager")
    processor = source.image_processor()
    image, normalise = read_preprocessing(processor, source.given)
    words = _decoder(net)
    config = net.generation_config
    generation = read_generation(
        config,
        source.given,
        start=config.bos_token_id,
        eos=config.eos_token_id,
        positions=words.positions,
        max_new_tokens=source.max_new_tokens,
    )
    return assemble(
        source,
        "git",
        vision=Vision(normalise, net.git.image_encoder),
        remember=PrefixMemory(words, net.git.visual_projection),
        decoder=words,
        image=image,
        processor=processor,
        generation=generation,
        config=config,
        generate=lambda pixels, wanted: net.generate(pixel_values=pixels, generation_config=wanted)[
            :, 1:
        ],
    )


def _decoder(net: Any) -> Decoder:
    body = net.git
    return Decoder(
        body.embeddings.word_embeddings.weight,
        body.embeddings.position_embeddings.weight,
        bert_layers(body.encoder.layer, net.config),
        norm_words=norm_of(body.embeddings.LayerNorm),
        head=net.output.weight,
        bias=net.output.bias,
    )
