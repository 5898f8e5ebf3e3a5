"""Alternative texts inside picture files: in copies, or in the originals where that was asked for.

The pixels are not decoded: Exiv2 (through pyexiv2, GPL-3.0, an extra of its own) writes the XMP
block and leaves the rest of the file alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

from edgecap.photos.alt_text import Described
from edgecap.photos.errors import LibraryError
from edgecap.photos.files import make_folder, replacing
from edgecap.photos.walk import inside
from edgecap.runtime.errors import MissingExtraError

PROPERTY = "Xmp.iptc.AltTextAccessibility"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")


class Embedded:
    """Writes each photograph's text into a copy of it, or into itself.

    folder : where copies go, laid out as the photographs are; None writes into the originals
    originals : the folders that the photographs come from; copies must lie outside of them
    language : tag of the texts' language (BCP 47)
    replace : write over a text, or over a copy, that is there already

    JPEG, PNG, WebP and TIFF take XMP. Raises ``LibraryError`` and ``MissingExtraError``.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        originals: tuple[Path, ...] = (),
        language: str = "en",
        replace: bool = False,
    ) -> None:
        self._exiv2 = _exiv2()
        self.written = self.kept = 0
        self._folder, self._language, self._replace = folder, language, replace
        for original in originals if folder is not None else ():
            real, below = os.path.realpath(original), os.path.realpath(str(folder))
            if Path(below).is_relative_to(real):
                raise LibraryError(
                    f"copies in {folder} would lie among the originals of {original}; give a "
                    "folder outside of it"
                )

    def add(self, described: Described) -> None:
        """Write a copy, or the original; a file with an alternative text is left as it is."""
        if not described.alt:
            return
        source = described.path
        if source.suffix.lower() not in SUFFIXES:
            raise LibraryError(
                f"{source} is a {source.suffix} file, into which no XMP can be written; "
                f"{', '.join(SUFFIXES)} take it, a side-car goes beside any"
            )
        if self._folder is None:
            target = Path(os.path.realpath(source))  # a link stays one
        else:
            target = inside(self._folder, described.relative)
            if target.exists() and os.path.samefile(target, source):
                raise LibraryError(
                    f"the copy {target} would be {source} itself; give another folder for copies"
                )
            if target.exists() and not self._replace:
                self.kept += 1
                return
        try:
            data = source.read_bytes()
        except OSError as error:
            raise LibraryError(f"{source} cannot be read: {error.strerror or error}") from None
        if (new := self._with_text(data, described)) is None:
            self.kept += 1
            if self._folder is None:
                return
            new = data  # the copy is made all the same
        else:
            self.written += 1
        make_folder(target.parent)
        with replacing(target, like=source) as file:
            file.write(new)
        if self._folder is not None:
            with contextlib.suppress(OSError):  # some disks keep no times
                shutil.copystat(source, target)

    def _with_text(self, data: bytes, described: Described) -> bytes | None:
        texts = {'lang="x-default"': described.alt, f'lang="{self._language}"': described.alt}
        try:
            with self._exiv2.ImageData(data) as image:
                held = image.read_xmp().get(PROPERTY)
                if held and not self._replace and str(held).strip():
                    return None
                others = held if isinstance(held, dict) else {}
                image.modify_xmp({PROPERTY: {**others, **texts}})
                return bytes(image.get_bytes())
        except (RuntimeError, ValueError, UnicodeError) as error:
            raise LibraryError(
                f"no XMP can be written into {described.path}: {' '.join(str(error).split())}"
            ) from None

    def close(self, whole: bool) -> None:
        """Nothing is left to do: each file was written whole."""


def _exiv2() -> Any:
    try:
        import pyexiv2
    except ImportError as error:  # or it does not load on this machine
        raise MissingExtraError(
            f"texts inside picture files need the package 'pyexiv2' ({error}): pip install "
            "'edgecap[photos-embed]'; side-cars do without"
        ) from None
    pyexiv2.set_log_level(4)
    return pyexiv2
