"""Profiles out of YAML: by name or path, one built upon another, each error with its place."""

from __future__ import annotations

import difflib
import typing
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.profiles.profile import Part, Profile, Seconds

FOLDER = Path(__file__).parent
DEEPEST = 8  # profiles built upon one another


def names() -> list[str]:
    """The profiles that come with EdgeCap."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def source_of(profile: str | PathLike[str]) -> str:
    """The YAML of a profile, comments included; a name of ``names()`` or a path."""
    path = _find(profile)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path} cannot be read as a profile: {error}") from None


def load_profile(profile: str | PathLike[str] | None) -> Profile:
    """Read and check a profile.

    profile : a name of ``names()``, or the path of a YAML file. A file may begin with
        ``extends: NAME``: it then holds only what differs; lists replace lists. None: a profile
        without opinions

    Raises OptionsError with the file, the place in it, what was given and what is accepted.
    """
    if profile is None:
        return Profile()
    path = _find(profile)
    values = _merged(path, DEEPEST)
    values["name"] = path.stem
    _check_keys(values, Profile, "", path)
    try:
        made = msgspec.convert(values, Profile, dec_hook=_convert)
        made.check()
    except (msgspec.ValidationError, OptionsError) as error:
        raise OptionsError(f"{path.name}: {_plain(str(error))}") from None
    return made


def _find(profile: str | PathLike[str]) -> Path:
    given = fspath(profile)
    if given in names():
        return FOLDER / f"{given}.yaml"
    path = Path(given)
    if path.is_file():
        return path
    raise OptionsError(
        f"there is no profile {given!r}; give one of {', '.join(names())}, or the path of a file"
    )


def _merged(path: Path, depth: int) -> dict[str, Any]:
    import yaml

    text = source_of(path)
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # the last two: 2001-99-99, [[[[
        raise OptionsError(f"{path.name} is no YAML: {' '.join(str(error).split())}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise OptionsError(f"{path.name} holds no keys; give lines such as `about: my camera`")
    # A path is meant from the folder of the file that names it.
    nearness = values.get("nearness")
    if isinstance(nearness, dict) and isinstance(nearness.get("detector"), str):
        nearness["detector"] = str(path.parent / nearness["detector"])
    base = values.pop("extends", None)
    if base is None:
        return values
    if not isinstance(base, str) or depth == 0:
        raise OptionsError(f"{path.name}: extends is {base!r}; give the name of another profile")
    beside = path.parent / base
    return _over(_merged(_find(base if base in names() else beside), depth - 1), values)


def _over(base: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in above.items():
        inner = both.get(key)
        merge = isinstance(inner, dict) and isinstance(value, dict)
        both[key] = _over(inner, value) if merge else value  # type: ignore[arg-type]
    return both


def _check_keys(values: Any, kind: Any, place: str, path: Path) -> None:
    """Refuse keys that a part does not have, naming those it has and the nearest."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and isinstance(values, dict):
        for key, value in values.items():
            _check_keys(value, inner[1], f"{place}{key}.", path)
        return
    parts = [part for part in (kind, *inner) if isinstance(part, type) and issubclass(part, Part)]
    if not parts or not isinstance(values, dict):
        return
    fields = typing.get_type_hints(parts[0])
    accepted = [name for name in fields if place or name != "name"] + ["extends"] * (not place)
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(str(key), accepted, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise OptionsError(
                f"{path.name}: {place}{key} is no key of a profile{hint}; give one of "
                f"{', '.join(accepted)}"
            )
        _check_keys(value, fields[key], f"{place}{key}.", path)


def _convert(kind: type, value: Any) -> Any:
    """Times with their units, for msgspec."""
    if kind is not Seconds:
        raise TypeError(f"{kind} cannot be read from YAML")
    import humanfriendly

    # A number alone could mean seconds or milliseconds: only nothing needs no unit.
    if not isinstance(value, str) and value != 0:
        raise OptionsError(f"{value!r} has no unit; give a time such as 80 ms, 1.5 s or 2 minutes")
    text = str(value)
    try:
        seconds = humanfriendly.parse_timespan(text)
    except humanfriendly.InvalidTimespan:
        seconds = -1.0
    if seconds < 0.0 or (text.replace(".", "").isdigit() and seconds):
        raise OptionsError(
            f"{value!r} is no time; give a number with ms, s, minutes, h or days, such as 80 ms"
        )
    return Seconds(seconds)


def _plain(message: str) -> str:
    """msgspec's words with the place in front: ``stream.deadline: ...``."""
    text, found, place = message.rpartition(" - at `$")
    return f"{place.strip('`.')}: {text}" if found else message
