"""Trees of keys and values from YAML and the command line, checked against dataclasses."""

from __future__ import annotations

import difflib
import importlib
import types
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from edgecap.runtime.errors import DataError, OptionsError

Tree = dict[str, Any]
T = TypeVar("T")


def decode_yaml(text: str, path: Path) -> Tree:
    """A YAML file's keys. Raises DataError where it holds anything else."""
    import msgspec

    try:
        tree = msgspec.yaml.decode(text)
    except (msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise DataError(f"{path} holds {type(tree).__name__}; give keys and values in YAML")
    return tree


def merge(base: Tree, top: Tree) -> Tree:
    """``top`` over ``base``: nested keys one by one, everything else whole."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = merge(below, value)
        merged[key] = value
    return merged


def override(tree: Tree, kind: type, values: Sequence[str]) -> Tree:
    """``tree`` with "key=value" of dotted keys set, each read as the type of its field.

    Raises OptionsError for an unknown key, with the nearest or all there are, or a wrong value.
    """
    tree = merge({}, tree)
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise OptionsError(f"{text!r} is not key=value; give such as options.epochs=3")
        *parents, leaf = key.split(".")
        node, fields, path = tree, _fields(kind, tree), ""
        for name in parents:
            _check_name(name, fields, path, key)
            path = f"{path}{name}."
            inside = _plain(fields[name])
            fields = _fields(inside, tree, name)
            if not fields and dict in (inside, get_origin(inside)):
                fields = _AnyName()
            elif not fields:
                raise OptionsError(f"{path[:-1]} has no keys inside; give {path[:-1]}=value")
            below = node.get(name)
            node[name] = dict(below) if isinstance(below, dict) else {}
            node = node[name]
        _check_name(leaf, fields, path, key)
        node[leaf] = _read(value, fields[leaf], key)
    return tree


def resolve(tree: Tree, kind: type[T], where: str) -> T:
    """``tree`` as a ``kind``. Raises DataError or OptionsError with the key that is wrong."""
    import msgspec

    _check_tree(tree, kind, "", tree, where)
    model = tree.get("model")
    try:
        if isinstance(model, dict):
            options = _family_options(tree)
            if options is not None:
                msgspec.convert({"vocab_size": 1000, **model}, options)
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise DataError(f"{where}: {error}") from None


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """Dotted key -> value; lists are values."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {k: v for name in tree for k, v in flatten(tree[name], f"{prefix}{name}.").items()}


def difference(old: Tree, new: Tree, ignored: Sequence[str] = ()) -> tuple[str, Any, Any] | None:
    """The first dotted key that two trees differ in, and its two values."""
    a, b = flatten(old), flatten(new)
    for key in {**a, **b}:
        if a.get(key) != b.get(key) and not key.startswith(tuple(ignored)):
            return key, a.get(key), b.get(key)
    return None


class _AnyName(dict[str, Any]):
    """The fields of what takes names that are not known here, such as an encoder's settings."""

    def __contains__(self, _: object) -> bool:
        return True

    def __missing__(self, _: str) -> Any:
        return Any


def _check_name(name: str, fields: dict[str, Any], path: str, given: str) -> None:
    if name in fields:
        return
    near = difflib.get_close_matches(name, fields, 1) or [
        f for f in fields if name.lower() in f.lower()
    ]
    hint = f"did you mean {path}{near[0]}?" if near else ""
    listed = f"{path[:-1] or 'a recipe'} has {', '.join(fields) or 'no keys'}"
    raise OptionsError(f"unknown key {given!r}; {hint or listed}")


def _check_tree(value: object, kind: Any, path: str, tree: Tree, where: str) -> None:
    """Refuse names that no dataclass has; msgspec passes over them in silence."""
    if isinstance(value, list):
        inside = get_args(_plain(kind))
        for item in value:
            _check_tree(item, inside[0] if inside else Any, path, tree, where)
    if not isinstance(value, dict):
        return
    fields = _fields(kind, tree, path.rstrip(".").rpartition(".")[2])
    for name, item in value.items():
        if fields:
            try:
                _check_name(name, fields, path, f"{path}{name}")
            except OptionsError as error:
                raise DataError(f"{where}: {error}") from None
            _check_tree(item, fields[name], f"{path}{name}.", tree, where)


def _fields(kind: Any, tree: Tree, name: str = "") -> dict[str, Any]:
    """Field -> type of a dataclass or struct; nothing for other types."""
    from edgecap.runtime.manifest import DecodingDefaults

    plain = _plain(kind)
    if plain is dict or get_origin(plain) is dict:
        if name == "decoding":
            plain = DecodingDefaults
        elif name == "model":
            plain = _family_options(tree)
    if not (is_dataclass(plain) or hasattr(plain, "__struct_fields__")):
        return {}
    hints = get_type_hints(plain)
    hidden = ("vocab_size",) if name == "model" else ()
    names = getattr(plain, "__struct_fields__", None) or plain.__dataclass_fields__
    return {field: hints[field] for field in names if field not in hidden}


def _family_options(tree: Tree) -> type | None:
    from edgecap.training.models import FAMILIES

    family = tree.get("family", "image-transformer")
    if family not in FAMILIES:
        raise DataError(f"unknown family {family!r}; give one of {', '.join(FAMILIES)}")
    module, _, options = FAMILIES[family]
    found: type = getattr(importlib.import_module(module), options)
    return found


def _plain(kind: Any) -> Any:
    """A type without its ``| None``."""
    if get_origin(kind) in (Union, types.UnionType):
        rest = [part for part in get_args(kind) if part is not type(None)]
        return rest[0] if len(rest) == 1 else kind
    return kind


def _read(text: str, kind: Any, key: str) -> Any:
    """A value of the command line as the type of its field."""
    import msgspec

    plain = _plain(kind)
    try:
        if (
            plain in (dict, list, Any)
            or get_origin(plain) in (dict, list, tuple)
            or _fields(plain, {})
        ):
            return msgspec.yaml.decode(text)
        return msgspec.convert(text, kind, strict=False)
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
        accepted = str(error)
        if get_origin(plain) is Literal:
            accepted = f"give one of {', '.join(map(str, get_args(plain)))}"
        raise OptionsError(f"{key} is {text!r}; {accepted}") from None
