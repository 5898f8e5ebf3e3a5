"""Text: the tokenizer of a bundle and the one normal form of captions."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from edgecap.runtime.errors import BundleError

_JOINED = re.compile(r"(?<=\w)['-](?=\w)")
_QUOTES = {ord(c): "'" for c in "\u2018\u2019\u02bc`"} | {ord(c): "-" for c in "\u2010\u2011"}


def normalise_caption(text: str) -> str:
    """NFKC, lower case, words alone with one space between.

    ``"A man's T-shirt."`` becomes ``"a man's t-shirt"``: punctuation goes, but for an apostrophe or
    a hyphen inside a word. Letters, their accents and digits stay. Idempotent.
    """
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES).lower()
    # Lower case can leave a decomposed letter, so the normal form is taken once more.
    text = unicodedata.normalize("NFKC", text)
    joined = {match.start() for match in _JOINED.finditer(text)}
    kept = (c if i in joined or _in_word(c) else " " for i, c in enumerate(text))
    return " ".join("".join(kept).split())


def _in_word(char: str) -> bool:
    # isalnum leaves out combining marks, which many scripts write their vowels with.
    return char.isalnum() or unicodedata.category(char)[0] == "M"


class Tokenizer:
    """Text <-> ids with the ``tokenizers`` file of a bundle.

    data : contents of ``tokenizer.json``
    special : ids that are never part of a sentence (BOS, EOS, padding, unknown)
    vocab_size : V where it is known; another size in the file is a ``BundleError``
    """

    def __init__(
        self, data: bytes, special: Iterable[int] = (), vocab_size: int | None = None
    ) -> None:
        from tokenizers import Tokenizer as Reader

        try:
            self._reader = Reader.from_buffer(data)
        except Exception as error:  # the package raises a bare Exception
            line = str(error).splitlines()[0] if str(error) else "unknown reason"
            raise BundleError(f"the tokenizer file cannot be read: {line}") from None
        self._special = frozenset(special)
        self.vocab_size: int = self._reader.get_vocab_size(with_added_tokens=True)
        if vocab_size is not None and self.vocab_size > vocab_size:
            raise BundleError(
                f"the tokenizer file has {self.vocab_size} tokens, the manifest says {vocab_size}"
            )

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, no specials added. Training gives it ``normalise_caption(text)``."""
        ids: list[int] = self._reader.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """The sentence of ``tokens``; specials are dropped, white space is folded."""
        words = [int(token) for token in tokens if int(token) not in self._special]
        return " ".join(self._reader.decode(words, skip_special_tokens=True).split())
