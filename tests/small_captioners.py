"""Small random captioners of transformers' own classes, saved as a hub would hold them.

Weights are larger than at a usual start, so that captions differ between pictures and end.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TEXT = [
    "a dog runs through the grass",
    "two men sit on a bench, and they don't look up!",
    "the man's red ball is in the water",
    "a child jumps into the snow. is it cold?",
    "people walk down a busy street at night",
    "it's a woman who rides a bike near the sea",
]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [f"{a}{b}{c}" for a in LETTERS[:8] for b in "aeiou" for c in LETTERS[8:14]]


def byte_level(size: int = 400) -> Any:
    """GPT-2's kind of tokenizer: byte-level BPE, one special token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXT, " ".join(WORDS)], trainer)
    return tokenizer


def word_piece(size: int = 300) -> Any:
    """BERT's kind of tokenizer: lower-case WordPiece, five special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXT, " ".join(WORDS)], trainer)
    return tokenizer


def gpt2_words(folder: Path) -> Any:
    import transformers

    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level(),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    words.save_pretrained(folder)
    return words


def bert_words(folder: Path, extra: tuple[str, ...] = ()) -> Any:
    import transformers

    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=word_piece(),
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        clean_up_tokenization_spaces=True,
    )
    words.add_special_tokens({"additional_special_tokens": list(extra)})
    words.save_pretrained(folder)
    return words


def preprocessing(folder: Path, kind: str, **settings: Any) -> None:
    settings = {"image_processor_type": kind, "do_resize": True, "do_normalize": True, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def louder(model: Any, eos: int, std: float = 0.4, end: float = 3.0, flat: float = 0.4) -> None:
    """Large random matrices, a head that leaves several tokens likely, and a likelier end."""
    import torch

    generator = torch.Generator().manual_seed(5)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "position" not in name and "wpe" not in name:
            parameter.data.normal_(0, std, generator=generator)
        elif parameter.ndim == 4:
            parameter.data.normal_(0, 0.1, generator=generator)
    head = model.get_output_embeddings() or model.text_decoder.get_output_embeddings()
    head.weight.data *= flat
    head.weight.data[eos] *= end
    if head.bias is not None:
        head.bias.data.normal_(0, 0.1, generator=generator)


VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VIT |= {"intermediate_size": 48, "image_size": 32, "patch_size": 8}
GPT2 = {"n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 72}
BERT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
BERT |= {"intermediate_size": 48, "max_position_embeddings": 40}


def _joined(folder: Path, encoder: Any, decoder: str, end: float = 3.0, **generation: Any) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    if decoder == "gpt2":
        words = gpt2_words(folder)
        start = eos = pad = words.eos_token_id
        config = transformers.GPT2Config(
            vocab_size=len(words), bos_token_id=eos, eos_token_id=eos, **GPT2
        )
    else:
        words = bert_words(folder)
        start, eos, pad = words.cls_token_id, words.sep_token_id, words.pad_token_id
        config = transformers.BertConfig(vocab_size=len(words), pad_token_id=pad, **BERT)
    config.is_decoder = config.add_cross_attention = True
    model = transformers.VisionEncoderDecoderModel(
        transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, config)
    ).eval()
    louder(model, eos, end=end)
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=start, eos_token_id=eos, pad_token_id=pad, **generation
    )
    model.save_pretrained(folder)


def vit_gpt2(folder: Path) -> None:
    import transformers

    _joined(folder, transformers.ViTConfig(**VIT), "gpt2", 2.0, max_length=13, num_beams=3)
    preprocessing(folder, "ViTImageProcessor", size={"height": 32, "width": 32}, resample=2)


def deit_bert(folder: Path) -> None:
    """With a projection between the two, a crop out of a squashed picture, and a slow tokenizer."""
    import transformers

    sizes = VIT | {"hidden_size": 48}
    _joined(
        folder,
        transformers.DeiTConfig(**sizes),
        "bert",
        max_new_tokens=9,
        num_beams=4,
        length_penalty=0.5,
    )
    preprocessing(
        folder,
        "DeiTImageProcessor",
        size={"height": 40, "width": 40},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        resample=3,
    )


def swin_gpt2(folder: Path) -> None:
    import transformers

    encoder = transformers.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    )
    _joined(folder, encoder, "gpt2", max_length=12, num_beams=2, early_stopping=True)
    preprocessing(folder, "ViTImageProcessor", size={"height": 64, "width": 64}, resample=1)


def blip(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    words = bert_words(folder, ("[DEC]", "[ENC]"))
    vision = VIT | {"image_size": 48, "patch_size": 16}
    text = BERT | {
        "vocab_size": len(words),
        "bos_token_id": words.convert_tokens_to_ids("[DEC]"),
        "pad_token_id": words.pad_token_id,
        "sep_token_id": words.sep_token_id,
        "eos_token_id": words.sep_token_id,
        "encoder_hidden_size": 32,
    }
    model = transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(vision_config=vision, text_config=text)
    ).eval()
    louder(model, words.sep_token_id)
    model.save_pretrained(folder)
    preprocessing(folder, "BlipImageProcessor", size={"height": 48, "width": 48}, resample=3)


def git(folder: Path) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    words = bert_words(folder)
    model = transformers.GitForCausalLM(
        transformers.GitConfig(
            vision_config=VIT,
            vocab_size=len(words),
            pad_token_id=words.pad_token_id,
            bos_token_id=words.cls_token_id,
            eos_token_id=words.sep_token_id,
            **BERT,
        )
    ).eval()
    louder(model, words.sep_token_id)
    model.generation_config.max_length = 11
    model.generation_config.repetition_penalty = 1.2
    model.save_pretrained(folder)
    preprocessing(
        folder,
        "CLIPImageProcessor",
        size={"shortest_edge": 36},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        resample=3,
    )


def clip_prefix(folder: Path, mapper: str = "mlp") -> None:
    """The paper's names in the mapper; ends at the full stop, as the paper's captions do."""
    import torch
    import transformers
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    vision = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(projection_dim=24, **VIT)
    ).eval()
    for parameter in vision.parameters():
        if parameter.ndim == 2:
            parameter.data.normal_(0, 0.3, generator=generator)
    vision.save_pretrained(folder / "clip")
    preprocessing(
        folder / "clip",
        "CLIPImageProcessor",
        size={"shortest_edge": 32},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        resample=3,
    )
    words = gpt2_words(folder / "gpt2")
    stop = words.convert_tokens_to_ids(".")
    sizes = GPT2 | {"n_inner": None}
    text = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(words), **sizes))
    louder(text.eval(), stop)
    text.generation_config = transformers.GenerationConfig(
        bos_token_id=0, eos_token_id=stop, pad_token_id=0, max_new_tokens=10, num_beams=5
    )
    text.save_pretrained(folder / "gpt2")

    def tensor(*shape: int, std: float = 0.4) -> Any:
        return torch.randn(*shape, generator=generator) * std

    length, width = 4, GPT2["n_embd"]
    config = {"model_type": "clip-prefix", "prefix_length": length, "mapper": mapper}
    if mapper == "mlp":
        middle = width * length // 2
        state = {
            "clip_project.model.0.weight": tensor(middle, 24),
            "clip_project.model.0.bias": tensor(middle),
            "clip_project.model.2.weight": tensor(width * length, middle),
            "clip_project.model.2.bias": tensor(width * length),
        }
    else:
        config |= {"mapper_tokens": 3, "mapper_layers": 1, "mapper_heads": 4}
        config |= {"normalize_prefix": True}
        layer = "clip_project.transformer.layers.0"
        state = {
            "clip_project.linear.weight": tensor(3 * width, 24),
            "clip_project.linear.bias": tensor(3 * width),
            "clip_project.prefix_const": tensor(length, width),
            f"{layer}.norm1.weight": 1 + tensor(width),
            f"{layer}.norm1.bias": tensor(width),
            f"{layer}.norm2.weight": 1 + tensor(width),
            f"{layer}.norm2.bias": tensor(width),
            f"{layer}.attn.to_queries.weight": tensor(width, width),
            f"{layer}.attn.to_keys_values.weight": tensor(2 * width, width),
            f"{layer}.attn.project.weight": tensor(width, width),
            f"{layer}.attn.project.bias": tensor(width),
            f"{layer}.mlp.fc1.weight": tensor(2 * width, width),
            f"{layer}.mlp.fc1.bias": tensor(2 * width),
            f"{layer}.mlp.fc2.weight": tensor(width, 2 * width),
            f"{layer}.mlp.fc2.bias": tensor(width),
        }
    save_file(state, folder / "mapper.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


KINDS: dict[str, Callable[[Path], None]] = {
    "vit-gpt2": vit_gpt2,
    "blip": blip,
    "git": git,
    "deit-bert": deit_bert,
    "swin-gpt2": swin_gpt2,
    "clip-prefix": clip_prefix,
}
