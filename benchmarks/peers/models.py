"""Captioners of published sizes with random weights, saved as a hub would hold them.

    python benchmarks/peers/models.py vit-gpt2 models/vit-gpt2

Latency does not depend on what the weights are; what such a model says means nothing. The seed is
fixed and matrices are larger than at a usual start, so that the tokens of different pictures differ
and no two are as likely as each other.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

SEED = 0
GPT2_VOCABULARY = 50257
BERT_VOCABULARY = 30524


def vit_gpt2(folder: Path) -> Any:
    """ViT-B/16 at 224 and GPT-2 small with cross-attention: 239 M parameters."""
    import transformers

    decoder = transformers.GPT2Config(
        vocab_size=GPT2_VOCABULARY, add_cross_attention=True, is_decoder=True
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(), decoder
    )
    model = transformers.VisionEncoderDecoderModel(config)
    end = GPT2_VOCABULARY - 1
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=end, bos_token_id=end, eos_token_id=end, pad_token_id=end,
        num_beams=4, max_length=17,
    )  # fmt: skip
    _words(folder, GPT2_VOCABULARY, end="<|endoftext|>")
    _pixels(folder, "ViTImageProcessor", 0.5, 0.5)
    return model


def blip_base(folder: Path) -> Any:
    """BLIP's base size at 384: ViT-B/16 and a BERT-base decoder, 247 M parameters."""
    import transformers

    vision = {"image_size": 384}
    text = {"vocab_size": BERT_VOCABULARY, "encoder_hidden_size": 768}
    text |= {"bos_token_id": 30522, "eos_token_id": 2, "sep_token_id": 102, "pad_token_id": 0}
    config = transformers.BlipConfig(vision_config=vision, text_config=text)
    model = transformers.BlipForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=30522, eos_token_id=102, pad_token_id=0, num_beams=4, max_length=17
    )
    _words(folder, BERT_VOCABULARY, end="[SEP]", at=102)
    _pixels(
        folder,
        "BlipImageProcessor",
        [0.48145466, 0.4578275, 0.40821073],
        [0.26862954, 0.26130258, 0.27577711],
        side=384,
    )
    return model


DEFAULT = "default"  # the model that comes with the project, its trained weights
CHECKPOINT = Path(__file__).parents[2] / "training/records/default/checkpoint"
MODELS: dict[str, Callable[[Path], Any]] = {"vit-gpt2": vit_gpt2, "blip-base": blip_base}


def make(name: str, folder: Path) -> None:
    """Write the model, its tokenizer and its preprocessing to ``folder``."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    model = MODELS[name](folder).eval()
    generator = torch.Generator().manual_seed(SEED)
    for key, parameter in model.named_parameters():
        if parameter.ndim == 2 and "position" not in key and "wpe" not in key:
            parameter.data.normal_(0, 2 / math.sqrt(parameter.shape[-1]), generator=generator)
    model.save_pretrained(folder)


def _words(folder: Path, count: int, end: str, at: int | None = None) -> None:
    """A tokenizer with a made-up word for each id."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(count)}
    place = count - 1 if at is None else at
    del words[f"w{place}"]
    words[end] = place
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=end))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end, pad_token=end
    ).save_pretrained(folder)


def _pixels(folder: Path, kind: str, mean: Any, std: Any, side: int = 224) -> None:
    settings = {
        "image_processor_type": kind,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "size": {"height": side, "width": side},
        "resample": 2,
        "image_mean": mean if isinstance(mean, list) else [mean] * 3,
        "image_std": std if isinstance(std, list) else [std] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1))


@click.command()
@click.argument("name", type=click.Choice([*MODELS, DEFAULT]))
@click.argument("folder", type=click.Path(path_type=Path))
def main(name: str, folder: Path) -> None:
    """Make the model NAME in FOLDER."""
    if name == DEFAULT:
        shutil.copytree(CHECKPOINT, folder, dirs_exist_ok=True)
    else:
        make(name, folder)
    click.echo(f"{name} in {folder}")


if __name__ == "__main__":
    main()
