"""The index of photographs: one SQLite file with captions that can be searched (FTS5).

The file is in write-ahead mode, so that searches never wait for the indexer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgecap.photos.errors import LibraryError
from edgecap.photos.schema import APPLICATION_ID, PUT, SCHEMA, TABLES, Known, Row, below

VARIABLE = "EDGECAP_DATABASE"


def default_path() -> Path:
    """The file that EDGECAP_DATABASE names, else ``edgecap/photos.db`` in the user's data folder
    (XDG_DATA_HOME, by default ``~/.local/share``)."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    base = os.environ.get("XDG_DATA_HOME") or os.path.join("~", ".local", "share")
    return Path(base).expanduser() / "edgecap" / "photos.db"


class Database:
    """An index file that is open; to be closed, or used in a ``with`` statement.

    path : by default ``default_path()``
    write : make it where it is not there, and hold it alone among writers; else it must be there

    Raises ``LibraryError`` for a file that is no index, is damaged, comes from a newer version, is
    written by another process now, or cannot be opened. Methods raise it, too, such as for a disk
    that is full; nothing half-written stays then.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, write: bool = False) -> None:
        self.path = Path(path) if path is not None else default_path()
        self._lock: int | None = None
        if not write and not self.path.is_file():
            raise LibraryError(
                f"there is no index {self.path} yet; make one: edgecap index FOLDER"
                f"{'' if path is None else f' --database {self.path}'}"
            )
        with self._errors():
            if write:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._hold()
            uri = f"{self.path.absolute().as_uri()}?mode={'rwc' if write else 'rw'}"
            try:
                self._file = sqlite3.connect(uri, uri=True, isolation_level=None)
            except BaseException:
                self._release()
                raise
        try:
            with self._errors():
                self._prepare(write)
        except BaseException:
            self.close()
            raise

    def _hold(self) -> None:
        """Keep other indexers away; the lock ends with the process, however that ends."""
        lock = os.open(f"{self.path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise LibraryError(
                f"another process is writing to {self.path}; wait until it has finished, or give "
                "another file with --database"
            ) from None
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _prepare(self, write: bool) -> None:
        self._file.execute("PRAGMA busy_timeout = 10000")
        kind = self._file.execute("PRAGMA application_id").fetchone()[0]
        version = self._file.execute("PRAGMA user_version").fetchone()[0]
        if kind != APPLICATION_ID:
            if kind or version or self._file.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise LibraryError(
                    f"{self.path} is a database of another kind, no index of photographs; give "
                    "another file with --database"
                )
            if not write:
                raise LibraryError(f"the index {self.path} is empty; fill it: edgecap index FOLDER")
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.executescript(
                f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID};"
                f"PRAGMA user_version = {SCHEMA}; COMMIT;"
            )
        elif version != SCHEMA:
            raise LibraryError(
                f"the index {self.path} has version {version}, made by a newer EdgeCap; this one "
                f"reads version {SCHEMA}: upgrade it, or give another file with --database"
            )
        if write:
            # What a cut of power takes are the last captions, never the file.
            self._file.execute("PRAGMA synchronous = NORMAL")
            self._file.execute("PRAGMA foreign_keys = ON")
            if (found := self._file.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(found)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise LibraryError(self._explain(str(error))) from error
        except OSError as error:
            raise LibraryError(
                f"the index {self.path} cannot be opened: {error.strerror or error}; give a file "
                "in a folder that can be written with --database"
            ) from None

    def _explain(self, what: str) -> str:
        if "full" in what:
            return (
                f"the disk that holds {self.path} is full: what was written to it before is kept; "
                "make room and start again to go on"
            )
        if "unable to open" in what or "readonly" in what:
            return (
                f"the index {self.path} cannot be opened ({what}); it and its folder must be "
                "writable, also for a search: give another file with --database"
            )
        if "locked" in what:
            return f"the index {self.path} is held by another program ({what}); try again later"
        return (
            f"{self.path} is no index of photographs, or is damaged ({what}); delete it and index "
            "again, or give another file with --database"
        )

    def maker(self, model: str, name: str, beams: int, version: int) -> int:
        """The number of what makes captions: a model (sha256, name), a beam width, a version."""
        with self._errors():
            self._file.execute(
                "INSERT OR IGNORE INTO makers (model, name, beams, version) VALUES (?, ?, ?, ?)",
                (model, name, beams, version),
            )
            found = self._file.execute(
                "SELECT id FROM makers WHERE (model, beams, version) = (?, ?, ?)",
                (model, beams, version),
            ).fetchone()
        return int(found[0])

    def known(self, folder: Path) -> dict[str, Known]:
        """What the index has below ``folder``, by path."""
        with self._errors():
            rows = self._file.execute(
                "SELECT path, size, mtime_ns, maker, failure IS NOT NULL FROM photographs"
                " WHERE path >= ? AND path < ?",
                below(folder),
            )
            return {
                path: Known(size, mtime_ns, maker, bool(failed))
                for path, size, mtime_ns, maker, failed in rows
            }

    def contents(self, maker: int) -> set[bytes]:
        """BLAKE2b of all pictures that ``maker`` has captioned."""
        with self._errors():
            query = "SELECT content FROM photographs WHERE maker = ? AND failure IS NULL"
            return {row[0] for row in self._file.execute(query, (maker,))}

    def same_content(self, content: bytes, maker: int) -> Row | None:
        """A row that ``maker`` captioned whose file had these bytes."""
        names = ", ".join(Row._fields)
        with self._errors():
            row = self._file.execute(
                f"SELECT {names} FROM described"
                " WHERE content = ? AND maker = ? AND failure IS NULL LIMIT 1",
                (content, maker),
            ).fetchone()
        return None if row is None else _row(row)

    def rows(self) -> list[Row]:
        """All that the index knows, by path."""
        names = ", ".join(Row._fields)
        with self._errors():
            found = self._file.execute(f"SELECT {names} FROM described ORDER BY path").fetchall()
        return [_row(values) for values in found]

    def put(self, rows: Sequence[Row]) -> None:
        """Write rows, all or none; one of the same path is replaced."""
        with self._errors(), self._transaction():
            self._file.executemany(
                "INSERT OR IGNORE INTO texts (text) VALUES (?)",
                ((row.text,) for row in rows if not row.failure),
            )
            self._file.executemany(PUT, rows)

    def remove(self, paths: Sequence[str]) -> None:
        """Forget files, all or none."""
        with self._errors(), self._transaction():
            self._file.executemany("DELETE FROM photographs WHERE path = ?", ((p,) for p in paths))

    def match(
        self, expression: str, folder: Path | None, limit: int
    ) -> list[tuple[str, str, float, bool, float]]:
        """(path, text, confidence, sure, bm25) of captions that match, best first.

        expression : in FTS5's syntax; see ``query.py`` for how users' words become one

        Of photographs with the same text those with a higher confidence come first.
        """
        where, one, among = "", "", tuple[str, ...]()
        if folder is not None:
            one, among = " AND path >= ? AND path < ?", below(folder)
            where = f" AND rowid IN (SELECT text_id FROM photographs WHERE TRUE{one})"
        hits: list[tuple[str, str, float, bool, float]] = []
        with self._errors():
            texts = self._file.execute(
                "SELECT rowid, text, rank FROM captions"
                f" WHERE captions MATCH ?{where} ORDER BY rank LIMIT ?",
                (expression, *among, limit),
            ).fetchall()
            for number, text, rank in texts:
                found = self._file.execute(
                    f"SELECT path, confidence, sure FROM photographs WHERE text_id = ?{one}"
                    " ORDER BY confidence DESC, path LIMIT ?",
                    (number, *among, limit - len(hits)),
                )
                hits += [(path, text, sureness, bool(sure), rank) for path, sureness, sure in found]
                if len(hits) >= limit:
                    break
        return hits

    def count(self) -> int:
        """Photographs that have a caption."""
        with self._errors():
            query = "SELECT count(*) FROM photographs WHERE failure IS NULL"
            return int(self._file.execute(query).fetchone()[0])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._file.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled the transaction back by itself.
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file; the write-ahead part is merged into it."""
        self._file.close()
        self._release()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _row(values: Sequence[Any]) -> Row:
    row = Row(*values)
    return row._replace(sure=None if row.sure is None else bool(row.sure))
