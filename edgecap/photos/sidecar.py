"""Side-cars: an XMP file with a photograph's alternative text, beside it or in another folder."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Literal

from edgecap.photos import xmp
from edgecap.photos.alt_text import Described
from edgecap.photos.errors import LibraryError
from edgecap.photos.files import make_folder, replacing
from edgecap.photos.walk import inside

# photo.jpg.xmp, as darktable and digiKam write it, or photo.xmp, as Adobe's programs do.
Naming = Literal["full", "stem"]
NAMINGS: tuple[Naming, ...] = ("full", "stem")


class SideCars:
    """Writes a side-car for each photograph that has a text.

    folder : where they go, laid out as the photographs are; None is beside each photograph
    naming : "full" is photo.jpg.xmp, "stem" is photo.xmp
    language : tag of the texts' language (BCP 47)
    replace : write over an alternative text that is there already

    Everything else in a side-car that exists stays as it was.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        naming: Naming = "full",
        language: str = "en",
        replace: bool = False,
    ) -> None:
        xmp.lxml_etree()  # told before the first photograph is captioned
        self.written = self.kept = 0
        self._folder, self._naming = folder, naming
        self._language, self._replace = language, replace
        self._made: dict[str, Path] = {}

    def add(self, described: Described) -> None:
        """Write a side-car, or leave it as it is."""
        if not described.alt:
            return
        target = self._target(described)
        taken = self._made.setdefault(os.path.realpath(target), described.path)
        if taken != described.path:
            raise LibraryError(
                f"{described.path} and {taken} would share the side-car {target.name}; give "
                "--sidecar-name full"
                if self._naming == "stem"
                else f"{described.path} and {taken} would share the side-car {target}; give them "
                "in separate runs"
            )
        packet = xmp.with_alt_text(
            xmp.read(target),
            described.alt,
            language=self._language,
            replace=self._replace,
            name=str(target),
        )
        if packet is None:
            self.kept += 1
            return
        make_folder(target.parent)
        with replacing(target, like=target if target.exists() else None) as file:
            file.write(packet)
        self.written += 1

    def _target(self, described: Described) -> Path:
        name = PurePosixPath(described.relative)
        name = (
            name.with_name(f"{name.name}.xmp")
            if self._naming == "full"
            else name.with_suffix(".xmp")
        )
        if self._folder is not None:
            return inside(self._folder, str(name))
        return described.path.with_name(name.name)

    def close(self, whole: bool) -> None:
        """Nothing is left to do: each side-car was written whole."""
