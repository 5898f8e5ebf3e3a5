"""Alternative texts as a table (CSV) that shops and spreadsheets import."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from edgecap.photos.alt_text import Described
from edgecap.photos.files import WholeFile

COLUMNS = ("path", "alt_text", "caption", "confidence", "sure")
# A spreadsheet takes a cell that begins with one of these, or with the wide forms of them, for a
# formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvFile:
    """Writes rows of ``COLUMNS`` in UTF-8, as RFC 4180 has them.

    path : the file, written whole when it is closed; None is standard output

    A cell that a spreadsheet would take for a formula gets an apostrophe before it.
    """

    def __init__(self, path: Path | None) -> None:
        self.written = self.kept = 0
        self._file = WholeFile(path)
        self._row(COLUMNS)

    def add(self, described: Described) -> None:
        """Write a row."""
        caption = described.caption
        self._row(
            (
                harmless(described.relative),
                harmless(described.alt),
                harmless(caption.text),
                f"{caption.confidence:.4f}",
                "yes" if caption.sure else "no",
            )
        )
        self.written += 1

    def _row(self, cells: tuple[str, ...]) -> None:
        text = io.StringIO()
        csv.writer(text).writerow(cells)
        self._file.write(text.getvalue().encode())

    def close(self, whole: bool) -> None:
        """Put the file in its place, or give it up."""
        self._file.close(whole)


def harmless(cell: str) -> str:
    """A cell that no spreadsheet computes."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
