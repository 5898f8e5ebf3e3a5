"""transformers' ``VisionEncoderDecoderModel``: an image encoder, and GPT-2 or BERT that looks.

"ViT + GPT-2" on the hub is this one. The encoder is transformers' own network.
"""

from __future__ import annotations

from edgecap.export.importers.assemble import Vision, assemble
from edgecap.export.importers.base import CrossMemory, Imported
from edgecap.export.importers.bert import bert_decoder
from edgecap.export.importers.decoder import dense
from edgecap.export.importers.gpt2 import gpt2_decoder
from edgecap.export.importers.pixels import read_preprocessing
from edgecap.export.importers.source import Source, one_of
from edgecap.export.importers.words import read_generation
from edgecap.runtime.errors import DataError
from edgecap.training.models.encoders.transformers_encoder import need_transformers

# Encoder -> whether a picture's vector is the mean of its tokens, else it is the class token.
ENCODERS = {"vit": False, "deit": False, "swin": True}
DECODERS = {"gpt2": gpt2_decoder, "bert": bert_decoder}


def load(source: Source) -> Imported:
    """Raises DataError for an encoder or a decoder that is not in the tables above."""
    transformers = need_transformers("import")
    kinds = []
    for part, table in (("encoder", ENCODERS), ("decoder", DECODERS)):
        kind = str((source.config.get(part) or {}).get("model_type"))
        if kind not in table:
            raise DataError(
                f"{source.given} has the {part} {kind}; supported are {one_of([*table])}, others "
                "are added in export/importers/vision_encoder_decoder.py"
            )
        kinds.append(kind)
    encoder, decoder = kinds
    if not source.config["decoder"].get("add_cross_attention"):
        raise DataError(f"the decoder of {source.given} has no cross-attention to the picture")
    net = source.load(transformers.VisionEncoderDecoderModel, attn_implementation="eager")
    processor = source.image_processor()
    image, normalise = read_preprocessing(processor, source.given)
    words = DECODERS[decoder](net.decoder)
    config = net.generation_config
    start = config.decoder_start_token_id
    generation = read_generation(
        config,
        source.given,
        start=config.bos_token_id if start is None else start,
        eos=config.eos_token_id,
        positions=words.positions,
        max_new_tokens=source.max_new_tokens,
    )
    project = dense(net.enc_to_dec_proj) if hasattr(net, "enc_to_dec_proj") else None
    return assemble(
        source,
        f"{encoder}-{decoder}",
        vision=Vision(normalise, net.encoder, mean=ENCODERS[encoder]),
        remember=CrossMemory(words, project),
        decoder=words,
        image=image,
        processor=processor,
        generation=generation,
        config=config,
        generate=lambda pixels, wanted: net.generate(pixel_values=pixels, generation_config=wanted)[
            :, 1:
        ],
    )
