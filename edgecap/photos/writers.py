"""Which writer alternative texts go to, and what it may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgecap.photos.alt_text import Writer, check_language
from edgecap.photos.errors import LibraryError
from edgecap.photos.sidecar import NAMINGS, Naming

Format = Literal["csv", "jsonl", "html", "xmp"]
FORMATS: tuple[Format, ...] = ("csv", "jsonl", "html", "xmp")


@dataclass(frozen=True)
class WriteOptions:
    """Where alternative texts go.

    format : one of ``FORMATS``
    out : a file for csv, jsonl (standard output where None) and html; for xmp a folder for
        side-cars, which otherwise lie beside the photographs
    language : tag of the texts' language (BCP 47)
    sidecar_name : "full" is photo.jpg.xmp, "stem" is photo.xmp
    into_copies : xmp goes into copies of the photographs in this folder
    in_place : xmp goes into the photographs themselves
    replace : write over alternative texts, or copies, that are there

    Raises ``LibraryError`` for options that contradict each other.
    """

    format: Format
    out: Path | None = None
    language: str = "en"
    sidecar_name: Naming = "full"
    into_copies: Path | None = None
    in_place: bool = False
    replace: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise LibraryError(f"format is {self.format!r}; give one of {', '.join(FORMATS)}")
        if self.sidecar_name not in NAMINGS:
            raise LibraryError(
                f"sidecar_name is {self.sidecar_name!r}; give one of {', '.join(NAMINGS)}"
            )
        check_language(self.language)
        if self.format == "html" and self.out is None:
            raise LibraryError("a page needs a file: give -o captions.html")
        if self.format != "xmp" and (self.into_copies is not None or self.in_place):
            raise LibraryError(
                "texts are written into pictures as xmp: give --format xmp with --into-copies and "
                "--in-place"
            )
        ways = (self.out is not None, self.into_copies is not None, self.in_place)
        if sum(ways) > 1:
            raise LibraryError(
                "give one of -o (side-cars in a folder), --into-copies FOLDER and --in-place"
            )
        if self.format != "xmp" and self.out is not None and self.out.is_dir():
            raise LibraryError(f"{self.out} is a folder; give the {self.format} file to write")
        folder = self.into_copies or (self.out if self.format == "xmp" else None)
        if folder is not None and folder.exists() and not folder.is_dir():
            raise LibraryError(f"{folder} is a file; give a folder")


def open_writer(options: WriteOptions, originals: Sequence[Path] = ()) -> Writer:
    """The writer of a format, ready to write.

    originals : folders of the photographs; copies must lie outside of them

    Raises ``LibraryError`` where it cannot write, ``MissingExtraError`` for a missing package.
    """
    if options.format == "csv":
        from edgecap.photos.csv_file import CsvFile

        return CsvFile(options.out)
    if options.format == "jsonl":
        from edgecap.photos.jsonl_file import JsonLines

        return JsonLines(options.out)
    if options.format == "html":
        from edgecap.photos.html_page import HtmlPage

        assert options.out is not None
        return HtmlPage(options.out, language=options.language)
    if options.in_place or options.into_copies is not None:
        from edgecap.photos.embedded import Embedded

        return Embedded(
            options.into_copies,
            originals=tuple(originals),
            language=options.language,
            replace=options.replace,
        )
    from edgecap.photos.sidecar import SideCars

    return SideCars(
        options.out,
        naming=options.sidecar_name,
        language=options.language,
        replace=options.replace,
    )
