"""Filling the index: what is new or changed in a folder is captioned, the rest is left alone."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgecap.photos.ahead import ahead
from edgecap.photos.batch import Batch, Read, Report, digest, read_photograph
from edgecap.photos.database import Database, default_path
from edgecap.photos.errors import LibraryError
from edgecap.photos.schema import Known
from edgecap.photos.walk import Found, Photograph, find, holds_none
from edgecap.runtime.errors import OptionsError

if TYPE_CHECKING:
    from edgecap.runtime.captioner import Captioner

# Raised when the same model says something else of the same picture.
CAPTION_VERSION = 1
DEFAULT_BEAMS = 4


@dataclass(frozen=True)
class IndexOptions:
    """How a folder is indexed.

    beams : beam width; docs/photos.md says what it costs and gains
    workers : threads that read pictures; by default the cores, at most 8
    follow_links : also symbolic links, each folder once
    keep_captions : captions of another model or beam width are left as they are
    retry : try pictures again that failed before, even if they have not changed
    prune : forget all of a folder that has no photographs any more
    """

    beams: int = DEFAULT_BEAMS
    workers: int | None = None
    follow_links: bool = False
    keep_captions: bool = False
    retry: bool = False
    prune: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and not 1 <= self.workers <= 64:
            raise OptionsError(f"workers is {self.workers}; give a whole number from 1 to 64")


class Index:
    """An index of photographs that can be filled, by one process at a time.

    database : its file; by default the user's, see ``database.default_path``
    captioner : by default ``edgecap.load()``, when it is first needed

    ``report`` is what the update that runs, or ran last, has done. Raises ``LibraryError``.
    """

    def __init__(
        self,
        database: str | os.PathLike[str] | None = None,
        *,
        captioner: Captioner | None = None,
        options: IndexOptions | None = None,
    ) -> None:
        self.options = options or IndexOptions()
        self._captioner = captioner
        self._path = database
        self.report = Report()
        self._stop = threading.Event()

    def stop(self) -> None:
        """End the update that runs, or the next; what it has read is still written."""
        self._stop.set()

    def update(
        self,
        folder: str | os.PathLike[str],
        *,
        progress: Callable[[Report], None] | None = None,
    ) -> Report:
        """Bring the index up to date with all photographs below ``folder``.

        progress : called after the walk, and after each batch is written

        Batches of 8 are written as they are made. Whatever ends this early, ``stop``, an interrupt
        or a kill, the next call goes on where it stopped. Raises ``LibraryError`` where the folder
        or the index cannot be used, or where all photographs have gone (``prune`` forgets them).
        """
        begin = time.perf_counter()
        report = self.report = Report()
        found = find(folder, follow_links=self.options.follow_links)
        nothing = _nothing(found)
        if nothing and not os.path.exists(self._path or default_path()):
            raise LibraryError(nothing)
        if self._captioner is None:
            import edgecap

            self._captioner = edgecap.load()
        captioner = self._captioner
        decoding = captioner.options(beams=self.options.beams)
        with Database(self._path, write=True) as database:
            maker = self._maker(database, captioner, decoding.beams)
            known = database.known(found.root)
            if known and not found.photographs and not self.options.prune:
                raise LibraryError(
                    f"{found.root} has no photographs, the index has {len(known)} of it; if a disk "
                    "is missing bring it back, else give --prune to forget them"
                )
            if nothing and not known:
                raise LibraryError(nothing)
            report.found, report.links = len(found.photographs), found.links
            report.failures.update(found.unreadable)
            jobs = self._to_do(found, known, maker)
            batch = Batch(database, maker, captioner, decoding, report)
            batch.written = database.contents(maker)

            def told() -> None:
                report.seconds = time.perf_counter() - begin
                if progress is not None:
                    progress(report)

            def read(photograph: Photograph) -> Read:
                return read_photograph(captioner, photograph.path, batch.written)

            told()
            try:
                for photograph, result in ahead(jobs, read, workers=self.options.workers):
                    batch.add(photograph, result)
                    if batch.full:
                        batch.write()
                        told()
                    if self._stop.is_set():
                        report.interrupted = True
                        break
                batch.write()
                if not report.interrupted:
                    self._forget(database, found, known)
            finally:
                told()
                self._stop.clear()
        return report

    def _maker(self, database: Database, captioner: Captioner, beams: int) -> int:
        model = digest(captioner.path, hashlib.sha256()).hex()
        return database.maker(model, captioner.name, beams, CAPTION_VERSION)

    def _to_do(self, found: Found, known: dict[str, Known], maker: int) -> list[Photograph]:
        jobs = []
        for photograph in found.photographs:
            row = known.get(str(photograph.path))
            if row is None or (row.size, row.mtime_ns) != (photograph.size, photograph.mtime_ns):
                jobs.append(photograph)
            elif row.failed:
                if self.options.retry:
                    jobs.append(photograph)
                else:
                    self.report.kept_failures += 1
            elif row.maker != maker and not self.options.keep_captions:
                jobs.append(photograph)
            else:
                self.report.unchanged += 1
        return jobs

    def _forget(self, database: Database, found: Found, known: dict[str, Known]) -> None:
        """Take out what is no longer there; what lies in folders that cannot be read stays."""
        there = {str(photograph.path) for photograph in found.photographs}
        kept = tuple(f"{path}/" for path in found.unreadable)
        gone = [
            path
            for path in known
            if path not in there and path not in found.unreadable and not path.startswith(kept)
        ]
        database.remove(gone)
        self.report.removed = len(gone)


def _nothing(found: Found) -> str | None:
    """What to say where there is nothing to look at, else None."""
    if found.photographs or found.unreadable:
        return None
    links = (
        f"; {found.links} links are left out, --follow-links follows them" if found.links else ""
    )
    return holds_none(found.root) + links
