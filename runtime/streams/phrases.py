"""Groups of words looked for in captions: hazards, and who comes and goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.text import normalise_caption

GAP = "..."
LONGEST_GAP = 3  # words that "..." may stand for, none included


class Phrases:
    """Finds which groups a caption names.

    groups : name -> phrases; a phrase is one word or several in their order, and ``...`` between
        two of them stands for up to three other words: "car ... stopped". Words are compared in
        the normal form of captions, whole and as they are spelt; give plurals of their own.

    Raises OptionsError for a phrase without words.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        self.groups = {
            name: tuple(_split(name, phrase) for phrase in phrases)
            for name, phrases in groups.items()
        }

    def find(self, text: str) -> dict[str, str]:
        """Group -> the words of ``text`` that name it, in the order of the groups."""
        words = normalise_caption(text).split()
        found = {}
        for name, phrases in self.groups.items():
            for phrase in phrases:
                spans = (_match(words, start, phrase) for start in range(len(words)))
                span = next((span for span in spans if span is not None), None)
                if span is not None:
                    found[name] = " ".join(words[span[0] : span[1]])
                    break
        return found

    def words(self) -> dict[str, set[str]]:
        """Group -> every word its phrases are made of."""
        return {
            name: {word for phrase in phrases for word in phrase if word != GAP}
            for name, phrases in self.groups.items()
        }


def _split(name: str, phrase: str) -> tuple[str, ...]:
    parts = [GAP if part == GAP else normalise_caption(part) for part in phrase.split()]
    words = tuple(word for part in parts for word in part.split())
    if not words or words[0] == GAP or words[-1] == GAP:
        raise OptionsError(
            f"{phrase!r} of {name!r} is no phrase; give words, {GAP!r} only between two of them"
        )
    return words


def _match(words: Sequence[str], start: int, phrase: Sequence[str]) -> tuple[int, int] | None:
    """Where ``phrase`` stands that begins at ``start``: first word and the one after the last."""
    place = start
    gap = 0
    for part in phrase:
        if part == GAP:
            gap = LONGEST_GAP
            continue
        reach = words[place : place + gap + 1]
        if part not in reach:
            return None
        place += reach.index(part) + 1
        gap = 0
    return start, place
