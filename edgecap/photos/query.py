"""Searching the index: a user's words, found in captions and ranked by BM25."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgecap.photos.database import Database
from edgecap.photos.errors import LibraryError

# Words that most captions have: they need not be found and say nothing of what is looked for.
_COMMON_WORDS = (
    "a an the of on in at to with and or by from is are was its his her their it there this that "
    "while for as"
)
_COMMON = frozenset(_COMMON_WORDS.split())
MAX_WORDS = 64


@dataclass(frozen=True)
class Hit:
    """A photograph whose caption was found.

    score : BM25, higher is better; to be compared within one answer
    """

    path: str
    text: str
    confidence: float
    sure: bool
    score: float

    def __str__(self) -> str:
        return f"{self.path}: {self.text}{'' if self.sure else ' (not sure)'}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Answer:
    """Photographs found, best first.

    matched : "all" where the captions have all of ``words``, "any" where none has and these have
        some of them
    words : those that were looked for
    """

    hits: tuple[Hit, ...]
    matched: Literal["all", "any"]
    words: tuple[str, ...]


def search(
    text: str,
    *,
    database: str | os.PathLike[str] | Database | None = None,
    folder: str | os.PathLike[str] | None = None,
    limit: int = 20,
) -> Answer:
    """Find photographs by words of their captions.

    text : any words; signs between them mean nothing. "dogs" finds "dog", case and accents are
        the same
    database : an index or its path; by default the user's, ``database.default_path()``
    folder : photographs below it only
    limit : how many at most

    Words such as "the" and "on" count only where there are no others. Raises ``LibraryError`` for
    a text without words, a limit under 1, an index that is not there or cannot be read.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= 1_000_000:
        raise LibraryError(f"limit is {limit!r}; give a whole number from 1 to 1000000")
    words = wanted_words(text)
    place = None if folder is None else Path(os.path.realpath(folder))
    own = not isinstance(database, Database)
    opened = Database(database) if not isinstance(database, Database) else database
    try:
        rows = opened.match(_expression(words, " AND "), place, limit)
        matched: Literal["all", "any"] = "all"
        if not rows and len(words) > 1:
            rows = opened.match(_expression(words, " OR "), place, limit)
            matched = "any"
    finally:
        if own:
            opened.close()
    hits = tuple(
        Hit(path, said, round(sureness, 4), sure, round(-rank, 9))
        for path, said, sureness, sure, rank in rows
    )
    return Answer(hits, matched, words)


def wanted_words(text: str) -> tuple[str, ...]:
    """The words of ``text`` to look for, each once. Raises ``LibraryError`` where it has none."""
    found = re.findall(r"[^\W_]+", text)
    words = tuple(dict.fromkeys(word.lower() for word in found))
    words = tuple(word for word in words if word not in _COMMON) or words
    if not words:
        raise LibraryError(f"{text[:80]!r} has no word to look for; give words of a caption")
    if len(words) > MAX_WORDS:
        raise LibraryError(f"{len(words)} words were given; at most {MAX_WORDS} are looked for")
    return words


def _expression(words: tuple[str, ...], operator: str) -> str:
    """Words in FTS5's syntax; each is quoted, and none holds a quote."""
    return operator.join(f'"{word}"' for word in words)
