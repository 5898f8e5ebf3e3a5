"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replacing(path: Path, *, like: Path | None = None) -> Iterator[BinaryIO]:
    """A binary file beside ``path`` that takes its place when the block ends well.

    like : a file whose permissions the new one gets

    A reader sees the old file or the whole new one; where anything fails, nothing stays of the new
    one. Raises ``OSError`` where it cannot be written.
    """
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        part.unlink(missing_ok=True)  # of a process that was killed
        with open(part, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            shutil.copymode(like, part)
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
