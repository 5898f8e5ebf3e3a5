"""Captions as sentences to be read or heard."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecap.runtime.streams.told import Note

_KIND = r"(?:image|picture|photo|photograph|view|shot|scene)"
# What a caption says of being a picture: nobody needs to hear it.
_FRAMES = re.compile(
    rf"^(?:(?:in|on) (?:the|this) {_KIND},? ?(?:we (?:can )?see |there (?:is|are) )?"
    rf"|this (?:is )?an? {_KIND} (?:of|with|that shows) |this {_KIND} (?:shows|is of) "
    rf"|an? (?:[a-z-]+ ){{0,3}}{_KIND} (?:of|with|that shows|showing) )",
    re.IGNORECASE,
)
_TRAILING = re.compile(rf"[ ,]+in (?:the|this) {_KIND}$", re.IGNORECASE)
# Words that cannot end a sentence: a caption that does was cut off.
_OPEN_WORDS = (
    "a an the of in on at to with and or by from as is are was his her their its while into "
    "onto over near next"
)
_OPEN = frozenset(_OPEN_WORDS.split())


def sentence(text: str, *, sure: bool = True) -> str:
    """A caption as one whole sentence: a capital, a full stop, no "a picture of", no loose end.

    Empty for a caption without words. One that is not sure begins with "Not sure, maybe".
    """
    text = " ".join(text.split()).strip(" .,;:!?")
    text = _TRAILING.sub("", text)
    text = _FRAMES.sub("", text, count=1)
    words = text.split()
    while words and words[-1].lower().strip(",") in _OPEN:
        words.pop()
    if not words:
        return ""
    body = " ".join(words).rstrip(",;:")
    if not sure:
        return f"Not sure, maybe {body}."
    return f"{body[0].upper()}{body[1:]}."


def tell_aloud(text: str, notes: Sequence[Note], *, sure: bool = True) -> str:
    """What is said of a caption: hazards first, then who came or went, then the sentence."""
    order = {kind: place for place, kind in enumerate(("alert", "appeared", "left"))}
    first = [note.sentence for note in sorted(notes, key=lambda note: order[note.kind])]
    body = sentence(text, sure=sure)
    return " ".join([*first, body]).strip()
