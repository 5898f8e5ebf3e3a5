"""Hazards that captions name: told at once, and not over and over while they stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgecap.runtime.streams.phrases import Phrases
from edgecap.runtime.streams.told import Note


@dataclass(frozen=True)
class Hazard:
    """words : phrases that name it (see ``Phrases``); say : how it is told."""

    words: tuple[str, ...]
    say: str


class Hazards:
    """Alerts from the words of captions. One watches one camera.

    A hazard is told when a caption first names it, and again when a caption names it after it was
    not named for ``again`` seconds. Captions that are not sure count, too: a doubtful hazard is
    told rather than kept back, and the sentence says that it is doubtful.
    """

    def __init__(self, hazards: Mapping[str, Hazard], *, again: float = 5.0) -> None:
        self._hazards = dict(hazards)
        self._phrases = Phrases({name: hazard.words for name, hazard in hazards.items()})
        self._again = again
        self._named: dict[str, float] = {}  # when each was named last

    def judge(self, text: str, sure: bool, now: float) -> list[Note]:
        """New alerts of a caption at ``now`` (seconds, any clock that grows)."""
        notes = []
        for name, words in self._phrases.find(text).items():
            last = self._named.get(name)
            self._named[name] = now
            # A clock that went back counts as a long time: better told twice than not at all.
            if last is None or not 0.0 <= now - last <= self._again:
                say = self._hazards[name].say
                sentence = f"Careful, {say}." if sure else f"Careful, maybe {say}."
                notes.append(Note("alert", name, words, sentence))
        return notes
