"""What every layout needs of its files: text and JSON with one-line errors, names kept inside."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TypeVar

import msgspec

from edgecap.runtime.errors import DataError

T = TypeVar("T")


def require_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DataError(f"no folder {str(folder)!r}; give NAME:FOLDER with the data set's folder")
    return folder


def read_text(path: Path) -> str:
    """A text file; a byte order mark at its start is dropped."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {str(path)!r} as UTF-8 text: {error}") from None


def read_json(path: Path, kind: type[T], what: str) -> T:
    """The JSON of ``path`` checked against ``kind``; ``what`` names the file in the error."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{str(path)!r} is not {what}: {' '.join(str(error).split())}; fetch it again or name "
            "the layout it has (`edgecap data list` shows them)"
        ) from None


def inside(folder: Path, name: str, source: Path) -> Path:
    """``folder / name``, refused where ``name``, read from ``source``, leads out of the folder."""
    if not is_inside(name):
        raise DataError(f"{str(source)!r} names {name!r}; give file names inside its folder only")
    return folder / name


def is_inside(name: str) -> bool:
    """Whether ``name`` is a relative path that never climbs."""
    pure = PurePosixPath(name)
    return not (
        not pure.parts
        or pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or "\0" in name
        or name[1:2] == ":"
    )


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of ``names``, paths below ``folder``, that is a file there."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def find_folder(folder: Path, *names: str) -> Path | None:
    """The first of ``names``, paths below ``folder``, that is a folder there."""
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def unknown_split(folder: Path, split: str, known: list[str]) -> DataError:
    listed = ", ".join(known) or "none"
    return DataError(f"unknown split {split!r}; {str(folder)!r} has {listed}")
