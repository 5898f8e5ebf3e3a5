"""Alternative texts as lines of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from edgecap.photos.alt_text import Described
from edgecap.photos.files import WholeFile


class JsonLines:
    """Writes an object a line: path, alt_text, caption, confidence, sure, score.

    path : the file, written whole when it is closed; None is standard output
    """

    def __init__(self, path: Path | None) -> None:
        self.written = self.kept = 0
        self._file = WholeFile(path)

    def add(self, described: Described) -> None:
        """Write a line."""
        caption = described.caption
        line = {
            "path": described.relative,
            "alt_text": described.alt,
            "caption": caption.text,
            "confidence": round(caption.confidence, 4),
            "sure": caption.sure,
            "score": round(caption.score, 4),
        }
        self._file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        self.written += 1

    def close(self, whole: bool) -> None:
        """Put the file in its place, or give it up."""
        self._file.close(whole)
