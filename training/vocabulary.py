"""Word-level vocabulary: small data has too few captions to learn the spelling of rare words."""

from __future__ import annotations

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
