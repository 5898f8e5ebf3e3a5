"""Photographs below a folder, and paths that must not lead out of one."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgecap.photos.errors import LibraryError
from edgecap.runtime.streams.sources.image_folder import SUFFIXES, is_picture


@dataclass(frozen=True)
class Photograph:
    """A picture file.

    path : absolute; below the folder that was walked, also where a link led there
    relative : from the folder that was walked, with "/" between its parts
    size, mtime_ns : as the file had them when it was found
    """

    path: Path
    relative: str
    size: int
    mtime_ns: int


@dataclass
class Found:
    """What a walk came upon.

    root : the folder, absolute, links resolved
    photographs : sorted by path, folder by folder
    unreadable : path of a folder or file -> why it was left out
    links : symbolic links that were left out
    other : files that are no pictures by their names
    """

    root: Path
    photographs: list[Photograph] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    links: int = 0
    other: int = 0


def find(folder: str | os.PathLike[str], *, follow_links: bool = False) -> Found:
    """The photographs below ``folder``, by the endings of their names.

    Names that begin with a dot are left out. So are symbolic links, which may lead out of the
    folder or round in it; with ``follow_links`` they are followed, each folder and each file once.
    A folder below that cannot be read is told in ``unreadable``; for ``folder`` itself that is a
    ``LibraryError``.
    """
    given = Path(folder)
    try:
        root = Path(os.path.realpath(given))
        if not given.is_dir():
            what = "is no folder" if given.exists() else "does not exist"
            raise LibraryError(f"{given} {what}; give a folder of photographs")
        with os.scandir(root):
            pass
    except (OSError, ValueError) as error:
        if isinstance(error, LibraryError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise LibraryError(f"the folder {given} cannot be read: {reason}") from None
    found = Found(root)
    seen: set[tuple[int, int]] = set()
    waiting = [(root, "")]
    while waiting:  # no recursion: folders may lie thousands deep
        place, prefix = waiting.pop()
        waiting += reversed(_look(place, prefix, found, seen, follow_links))
    return found


def _look(
    place: Path, prefix: str, found: Found, seen: set[tuple[int, int]], follow: bool
) -> list[tuple[Path, str]]:
    """Take a folder's photographs; its own folders are returned."""
    folders = []
    try:
        if follow and not _first_time(place.stat(), seen):
            return []
        entries = sorted(os.scandir(place), key=lambda entry: entry.name)
    except OSError as error:
        found.unreadable[printable(place)] = f"the folder cannot be read: {error.strerror}"
        return []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path, relative = Path(entry.path), prefix + entry.name
        if entry.is_symlink() and not follow:
            found.links += 1
            continue
        try:
            info = path.stat()
        except OSError as error:
            found.unreadable[printable(path)] = f"cannot be read: {error.strerror}"
            continue
        if stat.S_ISDIR(info.st_mode):
            folders.append((path, relative + "/"))
        elif not stat.S_ISREG(info.st_mode) or not is_picture(path):
            found.other += 1
        elif not follow or _first_time(info, seen):
            _take(path, relative, info, found)
    return folders


def _take(path: Path, relative: str, info: os.stat_result, found: Found) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        found.unreadable[printable(path)] = "its name is not in UTF-8; rename it"
        return
    found.photographs.append(Photograph(path, relative, info.st_size, info.st_mtime_ns))


def _first_time(info: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    key = (info.st_dev, info.st_ino)
    new = key not in seen
    seen.add(key)
    return new


def gather(
    paths: Sequence[str], *, follow_links: bool = False, as_given: bool = False
) -> tuple[list[Photograph], dict[str, str]]:
    """Pictures given by their paths, and those of folders given; and why others are left out.

    as_given : ``relative`` begins with the path that was given; else it is the place below the
        one folder given, or begins with the last part of the path

    A path that is no folder is taken as a picture, whatever its name. Raises ``LibraryError`` for
    a folder that cannot be read.
    """
    photographs: list[Photograph] = []
    problems: dict[str, str] = {}
    for given in paths:
        if not os.path.isdir(given):
            # Whether it is there, and a picture, is told when it is read.
            name = given if as_given else os.path.basename(given)
            if printable(given).encode() != os.fsencode(given):
                problems[printable(given)] = "its name is not in UTF-8; rename it"
                continue
            photographs.append(Photograph(Path(given), name, 0, 0))
            continue
        found = find(given, follow_links=follow_links)
        problems.update(found.unreadable)
        start = given.rstrip("/") if as_given else found.root.name
        prefix = "" if len(paths) == 1 and not as_given else f"{start}/"
        photographs += [
            replace(photograph, relative=prefix + photograph.relative)
            for photograph in found.photographs
        ]
        if not found.photographs:
            problems[given] = holds_none(given)
    return photographs, problems


def holds_none(folder: str | os.PathLike[str]) -> str:
    """What to say of a folder without pictures."""
    return f"{printable(folder)} holds no pictures; give a folder with {' '.join(SUFFIXES)}"


def printable(path: str | os.PathLike[str]) -> str:
    """A path for a message: bytes that are not UTF-8 become question marks."""
    return os.fsencode(path).decode("utf-8", "replace")


def inside(root: Path, relative: str) -> Path:
    """``root / relative``, which need not exist.

    Raises ``LibraryError`` where it would lie outside ``root``, also by a link on its way.
    """
    target = root / relative
    real, top = Path(os.path.realpath(target.parent)) / target.name, Path(os.path.realpath(root))
    if target == root or target.name in ("", "..") or not real.is_relative_to(top):
        raise LibraryError(f"{relative!r} leads out of {root}; give a path inside of it")
    return target
