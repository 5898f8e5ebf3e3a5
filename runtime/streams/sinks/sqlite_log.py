"""A log of captions in an SQLite file, to be searched while it grows."""

from __future__ import annotations

import json
import sqlite3
from os import PathLike, fspath

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.told import as_told

SCHEMA = 1
_TABLES = """
CREATE TABLE IF NOT EXISTS captions (
    id INTEGER PRIMARY KEY,
    captured_at REAL NOT NULL,
    source TEXT NOT NULL,
    frame INTEGER NOT NULL,
    pts REAL,
    text TEXT NOT NULL,
    confidence REAL,
    sure INTEGER NOT NULL,
    reason TEXT NOT NULL,
    verdict TEXT NOT NULL,
    sentence TEXT NOT NULL,
    event TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS captions_by_time ON captions (captured_at);
CREATE TABLE IF NOT EXISTS notes (
    caption INTEGER NOT NULL REFERENCES captions (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    what TEXT NOT NULL,
    sentence TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS notes_by_caption ON notes (caption);
CREATE INDEX IF NOT EXISTS notes_by_kind ON notes (kind, what);
CREATE TABLE IF NOT EXISTS notices (
    at REAL NOT NULL,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL,
    details TEXT NOT NULL
);
"""


class SqliteLog:
    """Writes each event as a row of ``captions``, what was noticed as rows of ``notes``,
    what happened to the stream as rows of ``notices``.

    path : the file; made if it is not there, continued if it is a log of this kind
    keep : rows of ``captions`` that are kept at most, the oldest go first; None keeps all

    The file is in write-ahead mode: readers never wait for the writer, a cut of power loses the
    last events at most and never the file. Each event is a transaction: where the disk is full the
    event is not written, the next one is tried again, and nothing half-written stays.

    Raises SinkError where the path cannot be written or holds something else.
    """

    def __init__(
        self, path: str | PathLike[str], *, keep: int | None = None, name: str = "sqlite"
    ) -> None:
        self.name = name
        self._path = fspath(path)
        if keep is not None and (isinstance(keep, bool) or keep < 1):
            raise SinkError(f"keep is {keep!r}; give a number of rows from 1, or nothing")
        self._keep = keep
        try:
            # Made here so that a bad path is told at once; used by the sink's thread alone.
            self._log = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._log.close()
                raise
        except sqlite3.Error as error:
            raise SinkError(
                f"{self._path} cannot be used as a log: {error}; give a new file in a folder that "
                "can be written, or a log that EdgeCap made"
            ) from None

    def _prepare(self) -> None:
        version = self._log.execute("PRAGMA user_version").fetchone()[0]
        tables = self._log.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version != SCHEMA and (version or tables):
            raise SinkError(
                f"{self._path} is a database of another kind (version {version}); this EdgeCap "
                f"writes logs of version {SCHEMA}: give a new file"
            )
        self._log.execute("PRAGMA journal_mode = WAL")
        self._log.execute("PRAGMA synchronous = NORMAL")
        self._log.execute("PRAGMA foreign_keys = ON")
        self._log.execute("PRAGMA busy_timeout = 5000")
        self._log.executescript(f"BEGIN; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT;")

    def write(self, event: Event) -> None:
        """Append one event; sqlite3.Error where the disk is full or gone."""
        told = as_told(event)
        values = told.to_dict()
        self._log.execute("BEGIN IMMEDIATE")
        try:
            row = self._log.execute(
                "INSERT INTO captions (captured_at, source, frame, pts, text, confidence, sure,"
                " reason, verdict, sentence, event) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    event.captured_at,
                    event.source,
                    event.frame,
                    values["pts"],
                    event.text,
                    values["confidence"],
                    event.sure,
                    event.reason,
                    told.verdict,
                    told.sentence,
                    json.dumps(values, ensure_ascii=False, allow_nan=False),
                ),
            ).lastrowid
            self._log.executemany(
                "INSERT INTO notes VALUES (?, ?, ?, ?)",
                [(row, note.kind, note.what, note.sentence) for note in told.notes],
            )
            if self._keep is not None and row is not None:
                self._log.execute("DELETE FROM captions WHERE id <= ?", (row - self._keep,))
            self._log.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled the transaction back by itself.
            if self._log.in_transaction:
                self._log.execute("ROLLBACK")
            raise

    def notice(self, notice: Notice) -> None:
        """Append something that is no caption: a lost camera, a changed model."""
        details = json.dumps(notice.details, ensure_ascii=False, default=str)
        self._log.execute(
            "INSERT INTO notices VALUES (?, ?, ?, ?, ?)",
            (notice.at, notice.source, notice.kind, notice.text, details),
        )

    def close(self) -> None:
        """Close the file; the write-ahead part is merged into it."""
        self._log.close()
