"""Tokenizers and generation settings of imported captioners, in the runtime's terms."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import msgspec
from tokenizers import Tokenizer

from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.errors import DataError, OptionsError
from edgecap.runtime.manifest import DecodingDefaults, TokenizerSpec

# What transformers replaces in a decoded text where clean_up_tokenization_spaces is on.
CLEAN_UP = [" .", " ?", " !", " ,", " n't", " 'm", " 's", " 've", " 're"]
# Settings that change what is said and have no meaning here; in their neutral form they are let be.
REFUSED: dict[str, tuple[Any, ...]] = {
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "constraints": (None,),
    "force_words_ids": (None,),
    "guidance_scale": (None, 1, 1.0),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None, 0, 0.0),
    "dola_layers": (None,),
    "watermarking_config": (None,),
    "stop_strings": (None, []),
    "renormalize_logits": (None, False),
}
LONG = 64  # tokens past which the caches cost more than they should


@dataclass(frozen=True)
class Generation:
    """How a source generates: the start token, the end token, and the rest by our names."""

    start: int
    eos: int
    pad: int
    decoding: DecodingDefaults
    notes: tuple[str, ...]


def read_generation(
    config: Any,
    source: str,
    *,
    start: int | None,
    eos: int | list[int] | None,
    positions: int,
    max_new_tokens: int | None,
    prompt: int = 1,
) -> Generation:
    """A ``GenerationConfig`` in our terms; settings that are None have transformers' defaults.

    start, eos : ids that the family settles
    positions : the longest caption that the decoder has positions for
    max_new_tokens : asked for by the user
    prompt : tokens before the caption that max_length and min_length count

    Raises DataError for settings that have no meaning here.
    """
    ends = [eos] if isinstance(eos, int) else list(eos or [])
    if start is None or len(set(ends)) != 1:
        what = "no start token" if start is None else f"{len(ends)} end tokens"
        raise DataError(
            f"{source} has {what}; set one decoder_start_token_id (or bos_token_id) and one "
            "eos_token_id in generation_config.json"
        )
    for name, neutral in REFUSED.items():
        value = getattr(config, name, None)
        if value not in neutral:
            raise DataError(
                f"{source} generates with {name} = {value!r}, which EdgeCap does not support; take "
                "it out of generation_config.json if its captions are good without"
            )
    notes = []
    if config.do_sample:
        notes.append("the source samples its captions; EdgeCap searches for the best instead")
    longest = config.max_new_tokens or (config.max_length - prompt if config.max_length else 20)
    longest = min(max_new_tokens or longest, positions)
    if longest > LONG:
        notes.append(
            f"captions may have {longest} tokens, and every step looks at that many slots a beam; "
            "a smaller max_new_tokens makes them faster"
        )
    least = config.min_new_tokens or max((config.min_length or 0) - prompt, 0)
    decoding = DecodingDefaults(
        beams=_given(config.num_beams, 1),
        max_new_tokens=longest,
        min_new_tokens=min(least, longest),
        length_penalty=_given(config.length_penalty, 1.0),
        early_stopping=_given(config.early_stopping, False),
        no_repeat_ngram_size=_given(config.no_repeat_ngram_size, 0),
        repetition_penalty=_given(config.repetition_penalty, 1.0),
        suppress_tokens=_suppressed(config, ends[0], source),
    )
    try:
        DecodingOptions(**msgspec.structs.asdict(decoding))
    except OptionsError as error:
        raise DataError(f"{source} generates with settings out of range: {error}") from None
    pad = config.pad_token_id
    return Generation(start, ends[0], ends[0] if pad is None else pad, decoding, tuple(notes))


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _suppressed(config: Any, eos: int, source: str) -> tuple[int, ...]:
    """Suppressed tokens, and bad words of one token, which mean the same."""
    words = [list(word) for word in config.bad_words_ids or [] if list(word) != [eos]]
    if any(len(word) != 1 for word in words):
        raise DataError(
            f"{source} generates with bad_words_ids of several tokens, which EdgeCap does not "
            "support; take them out of generation_config.json"
        )
    found = {*(config.suppress_tokens or ()), *(word[0] for word in words)}
    return tuple(sorted(int(token) for token in found))


def reference_config(config: Any, decoding: DecodingDefaults, beams: int) -> Any:
    """A ``GenerationConfig`` for the source's own ``generate`` with K = ``beams``."""
    config = copy.deepcopy(config)
    config.num_beams, config.do_sample = beams, False
    config.max_length, config.max_new_tokens = None, decoding.max_new_tokens
    return config


def read_tokenizer(tokenizer: Any, generation: Generation, vocab_size: int, source: str) -> bytes:
    """A ``tokenizer.json`` that decodes as the source's tokenizer does, clean-up included.

    Tokens added past the V that the model knows are left out: it can never say them.
    """
    reader = getattr(tokenizer, "backend_tokenizer", None)
    if reader is None:
        raise DataError(
            f"the tokenizer of {source} ({type(tokenizer).__name__}) has no fast form; save it "
            "as tokenizer.json"
        )
    data = json.loads(reader.to_str())
    own = reader.get_vocab_size(with_added_tokens=False)
    if own > vocab_size:
        raise DataError(
            f"the tokenizer of {source} has {own} tokens, its model {vocab_size}: they do not "
            "belong together"
        )
    data["added_tokens"] = [t for t in data["added_tokens"] if t["id"] < vocab_size]
    data["padding"] = data["truncation"] = None
    kept = Tokenizer.from_str(json.dumps(data, ensure_ascii=False))
    forced = tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
    if tokenizer.clean_up_tokenization_spaces and (data["model"].get("type") != "BPE" or forced):
        kept.decoder = _cleaning(kept.decoder)
    return kept.to_str().encode()


def _cleaning(decoder: Any) -> Any:
    """``decoder``, and after it the replacements of ``clean_up_tokenization``, in their order."""
    from tokenizers import decoders

    pairs = [(text, text[1:]) for text in CLEAN_UP]
    pairs.insert(4, (" ' ", "'"))
    steps = [decoders.Replace(old, new) for old, new in pairs]
    return decoders.Sequence([*([decoder] if decoder else []), decoders.Fuse(), *steps])


def tokenizer_spec(tokenizer: Any, generation: Generation, vocab_size: int) -> TokenizerSpec:
    """The ids with a meaning. Padding and unknown are the end token where the source's own are
    words: the runtime leaves these ids out of sentences."""
    special = set(tokenizer.all_special_ids)

    def one(token: int | None) -> int:
        return token if token is not None and token in special and token < vocab_size else eos

    eos = generation.eos
    return TokenizerSpec(
        file="tokenizer.json",
        bos=generation.start,
        eos=eos,
        pad=one(generation.pad),
        unk=one(tokenizer.unk_token_id),
        vocab_size=vocab_size,
    )
