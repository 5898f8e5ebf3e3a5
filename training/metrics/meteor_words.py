"""Words as METEOR 1.5 sees them: its own tokenisation, stems, synonym sets and phrases."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgecap.training.metrics.meteor_files import MeteorFiles

_ALPHA = (
    "A-Za-z\u0160\u017d\u0161\u017e\u0178\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e"
    "\u0400-\u0527\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
)
_PLAIN = re.compile(r"[a-z0-9 ]*\Z")
_DOTS = re.compile(r"\.{2,}")
_SPACE = re.compile("[ \u2000-\u200a\u202f\u205f\u3000\u00a0]+")
_BLANK = re.compile(r"[ \t\n\r\f]+")
_LETTER = re.compile(f"[{_ALPHA}]")
_ELLIPSIS = "\ue000"  # holds the place of a run of full stops while single ones are looked at

# In this order; each is one pass over the caption.
_RULES = [
    (re.compile(rf"([^0-9{_ALPHA} \t\n\x0b\f\r.'`,\-\u2018\u2019])"), r" \1 "),
    (re.compile(r"([^0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile(r"([0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile(r"([^0-9]),([0-9])"), r"\1 , \2"),
    (re.compile("[`\u2018\u2019]"), "'"),
    (re.compile("[\u201c\u201d]|''"), ' " '),
    (re.compile("\u2013"), "-"),
    (re.compile("--"), "-"),
    (re.compile(rf"([0-9{_ALPHA}.])-([0-9{_ALPHA}])"), r"\1 \2"),
    (re.compile(rf"([^{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([^{_ALPHA}0-9])'([{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(rf"([{_ALPHA}])'([{_ALPHA}])"), r"\1 '\2"),
    (re.compile(r"([0-9])'(s)"), r"\1 '\2"),
]


@dataclass(frozen=True)
class Sentence:
    """A caption with all that the matchers ask of it.

    stems, synsets, function : per word
    phrases : _native.CaptionPhrases
    """

    words: tuple[str, ...]
    stems: tuple[str, ...]
    synsets: tuple[frozenset[int], ...]
    function: tuple[bool, ...]
    phrases: Any


class Lexicon:
    """Makes sentences of captions and remembers what it has found out of each word."""

    def __init__(self, files: MeteorFiles) -> None:
        self._files = files
        self._stems: dict[str, str] = {}
        self._synsets: dict[str, frozenset[int]] = {}

    def sentence(self, caption: str) -> Sentence:
        """``caption`` is text or PTB tokens joined by spaces."""
        words = tuple(normalise(caption, self._files.abbreviations))
        return Sentence(
            words,
            tuple(self._stem(word) for word in words),
            tuple(self._synonyms(word) for word in words),
            tuple(word in self._files.function_words for word in words),
            self._files.paraphrases.find(words),
        )

    def _stem(self, word: str) -> str:
        found = self._stems.get(word)
        if found is None:
            found = self._stems[word] = self._files.stem(word)
        return found

    def _synonyms(self, word: str) -> frozenset[int]:
        found = self._synsets.get(word)
        if found is None:
            found = self._synsets[word] = self._files.wordnet.of(word)
        return found


def normalise(caption: str, abbreviations: dict[str, bool]) -> list[str]:
    """METEOR's tokens of a caption: contractions split to the right, hyphens opened, other
    punctuation apart, full stops apart unless they abbreviate, lower case."""
    if _PLAIN.match(caption):
        return caption.split()
    text = f" {caption} "
    text = _RULES[0][0].sub(_RULES[0][1], text)
    # A run of full stops becomes one word that no rule touches.
    text = _DOTS.sub(lambda run: f" {_ELLIPSIS * len(run[0])} ", text)
    for pattern, replacement in _RULES[1:]:
        text = pattern.sub(replacement, text)
    words = [word for word in _BLANK.split(text) if word]
    found: list[str] = []
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        found.extend(_split_full_stop(word, following, abbreviations))
    text = " ".join(found).replace(_ELLIPSIS, ".").lower()
    return [word for word in _BLANK.split(_SPACE.sub(" ", text)) if word]


def _split_full_stop(word: str, following: str, abbreviations: dict[str, bool]) -> tuple[str, ...]:
    if len(word) == 1 or not word.endswith("."):
        return (word,)
    stem = word[:-1]
    if "." in stem and _LETTER.search(stem):
        return (word.replace(".", ""),)  # "u.s." is "us"
    kept = "a" <= following[:1] <= "z"
    if stem in abbreviations:
        kept = kept or not abbreviations[stem] or "0" <= following[:1] <= "9"
    return (word,) if kept else (stem, ".")
