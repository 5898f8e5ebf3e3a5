"""BLIP captioning (Li et al. 2022): transformers' ``BlipForConditionalGeneration``, no prompt."""

from __future__ import annotations

from edgecap.export.importers.assemble import Vision, assemble
from edgecap.export.importers.base import CrossMemory, Imported
from edgecap.export.importers.bert import bert_decoder
from edgecap.export.importers.pixels import read_preprocessing
from edgecap.export.importers.source import Source
from edgecap.export.importers.words import read_generation
from edgecap.training.models.encoders.transformers_encoder import need_transformers


def load(source: Source) -> Imported:
    transformers = need_transformers("import")
    net = source.load(transformers.BlipForConditionalGeneration, attn_implementation="eager")
    processor = source.image_processor()
    image, normalise = read_preprocessing(processor, source.given)
    words = bert_decoder(net.text_decoder)
    # Its generate is the text decoder's, started and ended by ids of the text configuration.
    config, text = net.text_decoder.generation_config, net.config.text_config
    generation = read_generation(
        config,
        source.given,
        start=text.bos_token_id,
        eos=text.sep_token_id,
        positions=words.positions,
        max_new_tokens=source.max_new_tokens,
    )
    return assemble(
        source,
        "blip",
        vision=Vision(normalise, net.vision_model),
        remember=CrossMemory(words),
        decoder=words,
        image=image,
        processor=processor,
        generation=generation,
        config=config,
        generate=lambda pixels, wanted: net.generate(pixel_values=pixels, generation_config=wanted)[
            :, 1:
        ],
    )
