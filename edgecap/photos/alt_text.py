"""Captions as alternative texts: what a reader hears or sees in a picture's place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from edgecap.photos.errors import LibraryError, OutputError
from edgecap.photos.walk import Photograph
from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import EdgeCapError
from edgecap.runtime.streams.sentences import sentence

NotSure = Literal["skip", "mark", "keep"]
NOT_SURE: tuple[NotSure, ...] = ("skip", "mark", "keep")
# What the IPTC's guidance for AltTextAccessibility asks for.
MOST_CHARACTERS = 250
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True)
class Described:
    """A photograph with its caption and its alternative text, which may be empty.

    relative : where it lies below the folder that was given, with "/" between the parts
    """

    path: Path
    relative: str
    caption: Caption
    alt: str


class Writer(Protocol):
    """Where alternative texts go. ``written`` and ``kept`` count photographs.

    kept : had an alternative text already, which was left as it was
    """

    written: int
    kept: int

    def add(self, described: Described) -> None:
        """Take one; ``LibraryError`` where it cannot be written."""

    def close(self, whole: bool) -> None:
        """End; unless ``whole``, a file that is written as one is given up."""


def alt_text(caption: Caption, not_sure: NotSure = "mark") -> str:
    """A caption as an alternative text: one sentence of at most 250 characters.

    not_sure : what becomes of a caption under the model's confidence floor: "mark" begins it with
        "Not sure, maybe", "skip" gives an empty text, "keep" treats it like the others
    """
    if not caption.sure and not_sure == "skip":
        return ""
    words = caption.text.split()
    text = sentence(caption.text, sure=caption.sure or not_sure == "keep")
    while len(text) > MOST_CHARACTERS and len(words) > 1:
        words.pop()
        text = sentence(" ".join(words), sure=caption.sure or not_sure == "keep")
    return text if len(text) <= MOST_CHARACTERS else ""


def check_language(tag: str) -> str:
    """A language tag of BCP 47 by its form, such as "en" or "pt-BR"; else ``LibraryError``."""
    if not _LANGUAGE.fullmatch(tag):
        raise LibraryError(f"language is {tag!r}; give a tag such as en, en-GB or pt-BR")
    return tag


def write_all(
    captions: Iterable[tuple[Photograph, Caption | EdgeCapError]],
    writer: Writer,
    not_sure: NotSure = "mark",
) -> Iterator[tuple[Photograph, EdgeCapError | None]]:
    """Write each photograph's text; yields each with what went wrong, if anything did.

    The writer is closed at the end. Where this is left early, a csv, jsonl or html file is not
    made; side-cars and copies that were written stay, each whole.
    """
    whole = False
    try:
        for photograph, caption in captions:
            if isinstance(caption, EdgeCapError):
                yield photograph, caption
                continue
            alt = alt_text(caption, not_sure)
            try:
                writer.add(Described(photograph.path, photograph.relative, caption, alt))
            except OutputError:
                raise
            except EdgeCapError as error:
                yield photograph, error
                continue
            yield photograph, None
        whole = True
    finally:
        writer.close(whole)
