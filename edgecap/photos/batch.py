"""A few photographs that are captioned and written to the index together."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgecap.photos.ahead import describe
from edgecap.photos.database import Database
from edgecap.photos.schema import Row
from edgecap.photos.walk import Photograph
from edgecap.runtime.captioner import MAX_BATCH, Captioner
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.errors import EdgeCapError, ImageError
from edgecap.runtime.image import MAX_FILE_BYTES, RGB


class Hash(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@dataclass
class Report:
    """What an update has done so far; each figure counts photographs.

    reused : had the bytes of one that was captioned before: moved, copied or only touched
    failed : cannot be read; they are tried again when they change
    kept_failures : failed in an earlier run and have not changed since
    links : symbolic links that were left out
    interrupted : it was stopped before all was done
    failures : path -> why, of ``failed`` and of folders that cannot be read
    """

    found: int = 0
    unchanged: int = 0
    captioned: int = 0
    reused: int = 0
    failed: int = 0
    kept_failures: int = 0
    removed: int = 0
    links: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Photographs that need nothing more."""
        return self.unchanged + self.captioned + self.reused + self.failed + self.kept_failures


@dataclass(frozen=True)
class Read:
    """What a reading thread brings of a file.

    content : BLAKE2b of its bytes, 16 bytes
    pixels : uint8 RGB [S, S, 3]; None where a picture of these bytes had its caption already
    """

    content: bytes
    pixels: RGB | None


def read_photograph(captioner: Captioner, path: Path, captioned: set[bytes]) -> Read:
    """Read a file. captioned : of what need no pixels. Raises ``ImageError``."""
    content = digest(path, hashlib.blake2b(digest_size=16))
    return Read(content, None if content in captioned else prepare(captioner, path))


def prepare(captioner: Captioner, path: Path) -> RGB:
    """``Captioner.prepare``; what does not fit into memory is an ``ImageError``, too."""
    try:
        return captioner.prepare(path)
    except MemoryError:
        raise ImageError(f"{path} does not fit into memory; scale it down") from None


def digest(path: Path, of: Hash) -> bytes:
    """The digest of a file's bytes. Raises ``ImageError`` where they cannot be read."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise ImageError(f"{path} has over {MAX_FILE_BYTES} bytes; scale it down")
            while part := file.read(1 << 20):
                of.update(part)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}") from None
    return of.digest()


class Batch:
    """Collects photographs, captions those that are new, and writes them all in one transaction.

    report : what was written is counted there
    written : BLAKE2b of all pictures that have their caption through this batch
    """

    def __init__(
        self,
        database: Database,
        maker: int,
        captioner: Captioner,
        options: DecodingOptions,
        report: Report,
    ) -> None:
        self._database, self._maker = database, maker
        self._captioner, self._options = captioner, options
        self._report = report
        self._items: list[tuple[Photograph, bytes | Row]] = []  # a row needs no caption
        self._new: dict[bytes, RGB] = {}
        self.written: set[bytes] = set()

    @property
    def full(self) -> bool:
        """Whether it should be written now."""
        return len(self._new) == MAX_BATCH or len(self._items) >= 8 * MAX_BATCH

    def add(self, photograph: Photograph, result: Read | EdgeCapError) -> None:
        """Take a photograph that was read, or why it cannot be."""
        if isinstance(result, EdgeCapError):
            self._fail(photograph, result)
            return
        content = result.content
        if (like := self._database.same_content(content, self._maker)) is not None:
            self._items.append((photograph, self._row(photograph, like)))
            return
        if content not in self._new:
            try:
                # No pixels: what had these bytes has changed in this very run.
                pixels = (
                    prepare(self._captioner, photograph.path)
                    if result.pixels is None
                    else result.pixels
                )
            except ImageError as error:
                self._fail(photograph, error)
                return
            self._new[content] = pixels
        self._items.append((photograph, content))

    def write(self) -> None:
        """Caption what is new, write all of it, count it, and be empty."""
        new = list(self._new)
        pixels = list(self._new.values())
        captions = describe(self._captioner, pixels, self._options) if new else []
        rows: list[Row] = []
        made: dict[bytes, Row] = {}
        reused = failed = 0
        now = time.time()
        for photograph, item in self._items:
            if isinstance(item, Row):
                row = item
                failed += row.failure is not None
                reused += row.failure is None
            elif item in made:  # a copy of one of this batch
                row = self._row(photograph, made[item])
                reused += 1
            else:
                caption = captions[new.index(item)]
                row = self._row(
                    photograph,
                    Row("", 0, 0, item, self._maker, caption.text, caption.confidence,
                        caption.sure, None, now),
                )  # fmt: skip
                made[item] = row
            rows.append(row)
        self._database.put(rows)
        self._report.captioned += len(made)
        self._report.reused += reused
        self._report.failed += failed
        self.written.update(made)
        self._items, self._new = [], {}

    def _fail(self, photograph: Photograph, error: EdgeCapError) -> None:
        self._report.failures[str(photograph.path)] = str(error)
        row = Row("", 0, 0, None, self._maker, "", None, None, str(error), time.time())
        self._items.append((photograph, self._row(photograph, row)))

    @staticmethod
    def _row(photograph: Photograph, like: Row) -> Row:
        # As the walk found it: what changes after that is looked at again by the next run.
        return like._replace(
            path=str(photograph.path), size=photograph.size, mtime_ns=photograph.mtime_ns
        )
