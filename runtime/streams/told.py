"""An event as a profile tells it: the sentence to say, what was noticed, whether it is new."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from edgecap.runtime.streams.event import Event

SAID, REFRESH, REPEAT = "said", "refresh", "repeat"


@dataclass(frozen=True)
class Note:
    """Something that a caption's words say, or a detector beside the captioner.

    kind : "alert" (a hazard is named, or something comes nearer), "appeared" or
        "left" (somebody or something came or went)
    what : the group of words, such as "pedestrian" or "parcel"; "nearer" for what comes nearer
    words : the words of the caption that say so; empty for "left"
    sentence : the note as a sentence
    """

    kind: str
    what: str
    words: str
    sentence: str


@dataclass(frozen=True)
class Told(Event):
    """An event with what a profile made of it.

    verdict : "said" (new), "refresh" (the same again after the maximum age) or "repeat" (the same;
        only sinks that draw each frame get those)
    sentence : what is said aloud or shown to people; empty where the profile stays silent
    notes : hazards, and who came or went
    """

    verdict: str = SAID
    sentence: str = ""
    notes: tuple[Note, ...] = ()

    @property
    def alerts(self) -> tuple[Note, ...]:
        """The hazards among the notes."""
        return tuple(note for note in self.notes if note.kind == "alert")

    def to_dict(self) -> dict[str, Any]:
        """The event's dictionary with ``verdict``, ``sentence`` and ``notes``."""
        notes = [
            {name: getattr(note, name) for name in ("kind", "what", "words", "sentence")}
            for note in self.notes
        ]
        return {
            **super().to_dict(),
            "verdict": self.verdict,
            "sentence": self.sentence,
            "notes": notes,
        }


def tell(event: Event, **told: Any) -> Told:
    """``event`` with the fields that ``Told`` adds."""
    return Told(**{f.name: getattr(event, f.name) for f in fields(event)} | told)


def as_told(event: Event) -> Told:
    """The event itself if a profile has told it; otherwise its caption said as it is."""
    return event if isinstance(event, Told) else tell(event, sentence=event.text)
