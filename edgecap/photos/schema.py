"""The tables of the index, and the rows that go in and out.

A row of ``photographs`` is a file. Many have the same caption, so texts are kept once; ``captions``
is their full-text index and follows ``texts`` by triggers, as ``texts`` follows ``photographs``.
The view ``described`` shows files with their captions.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

APPLICATION_ID = 0x45436170  # "ECap", in the file's header
SCHEMA = 1
TABLES = """
CREATE TABLE makers (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    name TEXT NOT NULL,
    beams INTEGER NOT NULL,
    version INTEGER NOT NULL,
    UNIQUE (model, beams, version)
);
CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
CREATE TABLE photographs (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    content BLOB,
    maker INTEGER NOT NULL REFERENCES makers (id),
    text_id INTEGER REFERENCES texts (id),
    confidence REAL,
    sure INTEGER,
    failure TEXT,
    captioned_at REAL NOT NULL
);
CREATE INDEX photographs_by_content ON photographs (content);
CREATE INDEX photographs_by_text ON photographs (text_id, confidence DESC, path);
CREATE VIEW described AS
    SELECT path, size, mtime_ns, content, maker, coalesce(text, '') AS text, confidence, sure,
        failure, captioned_at
    FROM photographs LEFT JOIN texts ON texts.id = text_id;
CREATE VIRTUAL TABLE captions USING fts5 (
    text, content = 'texts', content_rowid = 'id',
    tokenize = 'porter unicode61 remove_diacritics 2'
);
CREATE TRIGGER texts_in AFTER INSERT ON texts BEGIN
    INSERT INTO captions (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER texts_out AFTER DELETE ON texts BEGIN
    INSERT INTO captions (captions, rowid, text) VALUES ('delete', old.id, old.text);
END;
CREATE TRIGGER photographs_out AFTER DELETE ON photographs BEGIN
    DELETE FROM texts WHERE id = old.text_id
        AND NOT EXISTS (SELECT 1 FROM photographs WHERE text_id = old.text_id);
END;
CREATE TRIGGER photographs_changed AFTER UPDATE OF text_id ON photographs
WHEN old.text_id IS NOT new.text_id BEGIN
    DELETE FROM texts WHERE id = old.text_id
        AND NOT EXISTS (SELECT 1 FROM photographs WHERE text_id = old.text_id);
END;
"""
# Of a ``Row``; its text must be in ``texts``.
PUT = """
INSERT INTO photographs
    (path, size, mtime_ns, content, maker, text_id, confidence, sure, failure, captioned_at)
VALUES (?, ?, ?, ?, ?, (SELECT id FROM texts WHERE text = ?), ?, ?, ?, ?)
ON CONFLICT (path) DO UPDATE SET
    size = excluded.size, mtime_ns = excluded.mtime_ns, content = excluded.content,
    maker = excluded.maker, text_id = excluded.text_id, confidence = excluded.confidence,
    sure = excluded.sure, failure = excluded.failure, captioned_at = excluded.captioned_at
"""


class Row(NamedTuple):
    """A file as the index knows it.

    content : BLAKE2b of its bytes, 16 bytes; None where they could not be read
    maker : what made the caption, see ``Database.maker``
    text : empty where ``failure`` says why there is no caption
    captioned_at : seconds since 1970
    """

    path: str
    size: int
    mtime_ns: int
    content: bytes | None
    maker: int
    text: str
    confidence: float | None
    sure: bool | None
    failure: str | None
    captioned_at: float


class Known(NamedTuple):
    """What tells whether a file must be looked at again."""

    size: int
    mtime_ns: int
    maker: int
    failed: bool


def below(folder: Path) -> tuple[str, str]:
    """First and last + 1 of the paths below a folder, by their bytes."""
    prefix = str(folder).rstrip("/")
    return f"{prefix}/", f"{prefix}0"  # "0" follows "/"
