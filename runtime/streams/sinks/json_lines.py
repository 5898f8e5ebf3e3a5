"""One line of strict JSON a caption, and one a notice."""

from __future__ import annotations

import json
from os import SEEK_END, PathLike, fspath
from typing import Any, BinaryIO

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.sinks.base import SinkGone


class JsonLines:
    """Writes each event as one UTF-8 line of strict JSON, whole, and flushed at once.

    ``stream`` is binary and stays open. Give an unbuffered one (``sys.stdout.buffer.raw``) where
    the reader may stall: a lock of Python's buffer held by a stalled write would hang the exit.
    """

    def __init__(self, stream: BinaryIO, name: str = "json") -> None:
        self.name = name
        self._stream = stream

    def write(self, event: Event) -> None:
        """Write the line; SinkGone when the reader has left."""
        self._line(event.to_dict())

    def notice(self, notice: Notice) -> None:
        """Write a notice as a line of its own."""
        self._line(notice.to_dict())

    def _line(self, values: dict[str, Any]) -> None:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        line = memoryview(f"{text}\n".encode("utf-8", "replace"))
        try:
            while line:  # an unbuffered stream may take a part of it
                line = line[self._stream.write(line) or 0 :]
            self._stream.flush()
        except BrokenPipeError as error:
            raise SinkGone from error

    def close(self) -> None:
        """Nothing to free: the stream belongs to who opened it."""


class JsonLinesFile(JsonLines):
    """Appends lines to a file. Where the disk is full a line is left out, never half-written.

    Raises SinkError where the file cannot be written.
    """

    def __init__(self, path: str | PathLike[str], name: str = "json") -> None:
        try:
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115  (closed in close)
        except OSError as error:
            raise SinkError(
                f"{fspath(path)} cannot be written ({error.strerror}); give a file in a folder "
                "that can be written"
            ) from None
        super().__init__(self._file, name)

    def _line(self, values: dict[str, Any]) -> None:
        start = self._file.seek(0, SEEK_END) if self._file.seekable() else None
        try:
            super()._line(values)
        except OSError:
            if start is not None:
                self._file.truncate(start)
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()
