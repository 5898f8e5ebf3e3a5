"""CLIP-prefix captioners (ClipCap, Mokady et al. 2021): CLIP's vector becomes GPT-2's first words.

No class of transformers is one, so the folder is ours; docs/import.md describes it. The mapper may
have our names or those of the paper's checkpoints.

As in the paper's code the first word follows the prefix itself, with no start token between: the
step of position 0 reads the prefix's last vector in its place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgecap.export.importers.assemble import assemble
from edgecap.export.importers.base import Imported
from edgecap.export.importers.decoder import UNSEEN, Decoder
from edgecap.export.importers.gpt2 import gpt2_decoder
from edgecap.export.importers.pixels import Normalise, read_preprocessing
from edgecap.export.importers.source import Source, one_of
from edgecap.export.importers.words import read_generation
from edgecap.runtime.errors import DataError
from edgecap.training.models.base import Named
from edgecap.training.models.encoders.base import Frozen
from edgecap.training.models.encoders.transformers_encoder import need_transformers
from edgecap.training.models.prefix import MlpMapper, TransformerMapper
from edgecap.training.models.published import match, read_state

VISION, TEXT, MAPPER = "clip", "gpt2", "mapper.safetensors"
# Names in the paper's checkpoints -> ours, of the MLP and around the Transformer's layers.
PUBLISHED = {
    "model.0.": "up.",
    "model.2.": "down.",
    "linear.": "unfold.",
    "prefix_const": "start",
    "transformer.layers.": "layers.",
    ".attn.project.": ".out.",
    ".mlp.fc1.": ".ffn.up.",
    ".mlp.fc2.": ".ffn.down.",
}


class ClipVector(nn.Module):
    """uint8 [B, S, S, 3] -> CLIP's projected vector [B, F], as tokens [B, 1, F] and by itself."""

    def __init__(self, normalise: Normalise, net: nn.Module, unit: bool) -> None:
        super().__init__()
        self.normalise, self.net, self.unit = normalise, net, unit

    def forward(self, pixels: torch.Tensor) -> Frozen:
        vector = self.net(pixel_values=self.normalise(pixels)).image_embeds
        if self.unit:
            vector = nn.functional.normalize(vector, dim=-1)
        return vector[:, None], vector


class PrefixWords(nn.Module):
    """Keys and values of the prefix but for its last vector, which is ``first``."""

    def __init__(self, decoder: Decoder, mapper: nn.Module, prefix: int) -> None:
        super().__init__()
        self.decoder, self.mapper, self.prefix = decoder, mapper, prefix

    def forward(self, tokens: torch.Tensor, pooled: torch.Tensor) -> Named:
        words = self.mapper(pooled)
        before = words[:, :-1] + self.decoder.places[: self.prefix - 1]
        mask = torch.full((self.prefix - 1, self.prefix - 1), UNSEEN).triu(1)
        return {**self.decoder.read(before, mask), "first": words[:, -1]}


def load(source: Source) -> Imported:
    """Raises DataError for a folder that is not laid out as docs/import.md says."""
    transformers = need_transformers("import")
    vision, text = source.folder / VISION, source.folder / TEXT
    for part in (vision / "config.json", text / "config.json", source.folder / MAPPER):
        if not part.is_file():
            raise DataError(
                f"{source.given} has no {part.relative_to(source.folder)}; a clip-prefix captioner "
                f"is config.json, {VISION}/, {TEXT}/ and {MAPPER}, see docs/import.md"
            )
    clip = source.load(
        transformers.CLIPVisionModelWithProjection, vision, attn_implementation="eager"
    )
    gpt = source.load(transformers.GPT2LMHeadModel, text, attn_implementation="eager")
    processor = source.image_processor(vision)
    image, normalise = read_preprocessing(processor, source.given)
    prefix = source.config.get("prefix_length", 10)
    if not isinstance(prefix, int) or prefix < 2:
        raise DataError(f"{source.given}: prefix_length is {prefix!r}; give 2 or more")
    mapper = _mapper(source, clip.config.projection_dim, gpt.config.n_embd, prefix)
    words = gpt2_decoder(gpt, offset=prefix - 1)
    config = gpt.generation_config
    generation = read_generation(
        config,
        source.given,
        start=config.bos_token_id,
        eos=config.eos_token_id,
        positions=words.positions,
        max_new_tokens=source.max_new_tokens,
        prompt=prefix,
    )
    if generation.decoding.repetition_penalty != 1 or generation.decoding.no_repeat_ngram_size == 1:
        # Elsewhere both see the start token, which there is none of here.
        raise DataError(
            f"{source.given} generates with repetition_penalty or single tokens that may not come "
            "again, which are not supported for clip-prefix; take them out of generation_config"
            ".json"
        )
    unit = bool(source.config.get("normalize_prefix", False))
    seen = ClipVector(normalise, clip, unit)

    def generate(pixels: torch.Tensor, wanted: Any) -> torch.Tensor:
        vector = clip(pixel_values=pixels).image_embeds
        if unit:
            vector = vector / vector.norm(2, -1, keepdim=True)
        found: torch.Tensor = gpt.generate(inputs_embeds=mapper(vector), generation_config=wanted)
        return found

    return assemble(
        source,
        "clip-prefix",
        vision=seen,
        remember=PrefixWords(words, mapper, prefix),
        decoder=words,
        image=image,
        processor=processor,
        generation=generation,
        config=config,
        generate=generate,
        words=text,
    )


def _mapper(source: Source, features: int, width: int, prefix: int) -> nn.Module:
    config, kind = source.config, source.config.get("mapper", "mlp")
    mapper: nn.Module
    if kind == "mlp":
        mapper = MlpMapper(features, width, prefix)
    elif kind == "transformer":
        mapper = TransformerMapper(
            features,
            width,
            prefix,
            config.get("mapper_tokens", 10),
            config.get("mapper_layers", 8),
            config.get("mapper_heads", 8),
            0.0,
        )
    else:
        raise DataError(
            f"{source.given}: mapper is {kind!r}; give {one_of(['mlp', 'transformer'])}"
        )
    file = str(source.folder / MAPPER)
    mapper.load_state_dict(match(our_names(read_state(file)), mapper.state_dict(), file))
    return mapper.eval()


def our_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The mapper's tensors of a ClipCap checkpoint under our names; ours stay as they are."""
    if any(name.startswith("clip_project.") for name in state):
        state = {
            name.removeprefix("clip_project."): value
            for name, value in state.items()
            if name.startswith("clip_project.")
        }
    found: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        if name.endswith(".attn.to_keys_values.weight"):
            continue  # goes with to_queries
        if name.endswith(".attn.to_queries.weight"):
            other = state.get(name.replace("to_queries", "to_keys_values"))
            value = value if other is None else torch.cat([value, other])
            name = name.replace(".attn.to_queries.", ".qkv.")
        for theirs, ours in PUBLISHED.items():
            if theirs.startswith("."):
                name = name.replace(theirs, ours)
            elif name.startswith(theirs):
                name = ours + name.removeprefix(theirs)
        found[name] = value
    return found
