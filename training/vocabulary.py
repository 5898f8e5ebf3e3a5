"""Vocabularies: whole words, since small data has too few captions to learn the spelling of rare
ones, or the pieces of a published language model behind our special tokens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgecap.runtime.text import normalise_caption

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


def build_word_tokenizer(captions: Iterable[str], min_count: int) -> Tokenizer:
    """A `tokenizers` word-level tokenizer of the words seen at least ``min_count`` times.

    Ids are ordered by frequency, ties by spelling, so that the same captions give the same file.
    """
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    counts = Counter(word for text in captions for word in normalise_caption(text).split())
    words = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
    vocab = {word: i for i, word in enumerate((*SPECIALS, *words))}
    tokenizer = Tokenizer(WordLevel(vocab, unk_token=SPECIALS[UNK]))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return tokenizer


def behind_specials(tokenizer_json: str) -> Tokenizer:
    """A published BPE tokenizer with our four specials before its own ids, which move up by four.

    ``clip-gpt`` lays GPT-2's embedding behind four rows in the same way. A tokenizer that has our
    specials already comes back as it is. Raises ``DataError`` for what is no tokenizer file, and
    for another kind than BPE.
    """
    from tokenizers import AddedToken, Tokenizer

    from edgecap.runtime.errors import DataError

    try:
        read = Tokenizer.from_str(tokenizer_json)
    except Exception as error:  # the package raises a bare Exception
        raise DataError(f"it is no tokenizer file ({error})") from None
    if all(read.token_to_id(token) == i for i, token in enumerate(SPECIALS)):
        return read
    tree = json.loads(tokenizer_json)
    if tree["model"].get("type") != "BPE":
        raise DataError(
            f"its model is {tree['model'].get('type')}; give a BPE tokenizer such as GPT-2's, or "
            "one of this project"
        )
    front = {token: i for i, token in enumerate(SPECIALS)}
    ours = len(front)
    vocab = tree["model"]["vocab"]
    tree["model"]["vocab"] = front | {token: i + ours for token, i in vocab.items()}
    for added in tree["added_tokens"]:
        added["id"] += ours
    # Whatever it would put around a text: captions begin and end with our own.
    tree["post_processor"] = None
    made = Tokenizer.from_str(json.dumps(tree))
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return made
