"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edgecap.photos.errors import LibraryError, OutputError
from edgecap.runtime.files import replacing as whole_file


@contextlib.contextmanager
def replacing(path: Path, *, like: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file beside ``path`` that takes its place when the block ends well.

    like : a file whose permissions the new one gets

    Raises ``LibraryError`` where it cannot be written; nothing stays of it then.
    """
    try:
        with whole_file(path, like=like) as file:
            yield file
    except OSError as error:
        raise LibraryError(f"{path} cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[BinaryIO]:
    """``replacing(path)``, or standard output for None."""
    if path is None:
        try:
            yield sys.stdout.buffer
        finally:
            sys.stdout.buffer.flush()
    else:
        with replacing(path) as file:
            yield file


class WholeFile:
    """A file in the making: ``file`` is written to, ``close`` puts it in its place or gives it up.

    path : None is standard output
    """

    def __init__(self, path: Path | None) -> None:
        self._name = str(path or "standard output")
        self._context = output(path)
        self.file: BinaryIO = self._context.__enter__()

    def write(self, data: bytes) -> None:
        """Append. Raises ``OutputError`` where the disk is full."""
        try:
            self.file.write(data)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            raise OutputError(
                f"{self._name} cannot be written: {error.strerror or error}"
            ) from None

    def close(self, whole: bool) -> None:
        """Put the file in its place, or give it up."""
        if whole:
            self._context.__exit__(None, None, None)
        else:
            given_up = KeyboardInterrupt()
            with contextlib.suppress(KeyboardInterrupt, LibraryError):
                self._context.__exit__(KeyboardInterrupt, given_up, None)


def make_folder(path: Path) -> None:
    """Make a folder and those above it. Raises ``LibraryError``."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LibraryError(f"the folder {path} cannot be made: {error.strerror or error}") from None
