"""Captions and references in JSON files, in plain form and in those of COCO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import DataError

HYPOTHESES = 'give {"image": "caption"} or a COCO result file, [{"image_id": 1, "caption": "..."}]'
REFERENCES = (
    'give {"image": ["caption", ...]} or a COCO annotation file, {"images": [...], "annotations": '
    '[{"image_id": 1, "caption": "..."}]}'
)


def read_hypotheses(path: str | Path) -> dict[str, str]:
    """Image id -> caption, of ``{image: caption}`` or a COCO result file.

    Raises DataError on an unreadable file, another shape, or an image with two captions.
    """
    data = _read(path)
    if isinstance(data, list):
        return _once(path, _rows(path, data, HYPOTHESES))
    if not isinstance(data, dict) or "annotations" in data:
        raise _wrong(path, data, HYPOTHESES)
    found: dict[str, str] = {}
    for image, caption in data.items():
        # A list of one is how pycocoevalcap itself is called.
        if isinstance(caption, list) and len(caption) == 1:
            caption = caption[0]
        if not isinstance(caption, str):
            raise DataError(f"{_name(path)}: image {image!r} has no text as caption; {HYPOTHESES}")
        found[image] = caption
    return found


def read_references(path: str | Path) -> dict[str, list[str]]:
    """Image id -> captions by people, of ``{image: [captions]}`` or a COCO annotation file.

    Raises DataError on an unreadable file, another shape, or an image without captions.
    """
    data = _read(path)
    if not isinstance(data, dict):
        raise _wrong(path, data, REFERENCES)
    found: dict[str, list[str]] = {}
    if isinstance(data.get("annotations"), list):
        images = data.get("images", [])
        for image in images if isinstance(images, list) else [images]:
            if not isinstance(image, dict) or not isinstance(image.get("id"), int | str):
                raise DataError(f"{_name(path)}: an entry of images has no id; {REFERENCES}")
            found[str(image["id"])] = []
        for image_id, caption in _rows(path, data["annotations"], REFERENCES):
            found.setdefault(image_id, []).append(caption)
    else:
        for image_id, captions in data.items():
            if not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
                raise DataError(
                    f"{_name(path)}: image {image_id!r} has no list of captions; {REFERENCES}"
                )
            found[image_id] = captions
    lonely = [image_id for image_id, captions in found.items() if not captions]
    if lonely:
        raise DataError(
            f"{_name(path)}: {len(lonely)} of {len(found)} images have no caption, such as "
            f"{lonely[0]!r}; give at least one for each"
        )
    return found


def _read(path: str | Path) -> Any:
    try:
        return json.loads(Path(path).read_bytes(), object_pairs_hook=_unique)
    except OSError as error:
        raise DataError(f"cannot read {_name(path)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{_name(path)} is not text in UTF-8; give JSON") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{_name(path)} is not valid JSON: {error.msg} in line {error.lineno}, column "
            f"{error.colno}"
        ) from None
    except RecursionError:
        raise DataError(f"{_name(path)} is nested too deeply to be captions") from None
    except _TwiceError as error:
        raise DataError(
            f"{_name(path)}: {error.args[0]!r} is there twice; give each image one entry"
        ) from None


class _TwiceError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in found if names.count(name) > 1))
    return found


def _rows(path: str | Path, rows: list[Any], wanted: str) -> list[tuple[str, str]]:
    found = []
    for number, row in enumerate(rows, start=1):
        image_id = row.get("image_id") if isinstance(row, dict) else None
        # bool is an int to Python, but no id.
        if not isinstance(image_id, int | str) or isinstance(image_id, bool):
            raise DataError(f"{_name(path)}: entry {number} has no image_id; {wanted}")
        if not isinstance(row.get("caption"), str):
            raise DataError(
                f"{_name(path)}: the caption of image {image_id!r} (entry {number}) is no text; "
                f"{wanted}"
            )
        found.append((str(image_id), row["caption"]))
    return found


def _once(path: str | Path, rows: list[tuple[str, str]]) -> dict[str, str]:
    found = dict(rows)
    if len(found) < len(rows):
        seen: set[str] = set()
        for image_id, _ in rows:
            if image_id in seen:
                raise DataError(
                    f"{_name(path)}: image {image_id!r} has more than one caption ({len(rows)} "
                    f"entries for {len(found)} images); give one each"
                )
            seen.add(image_id)
    return found


def _wrong(path: str | Path, data: Any, wanted: str) -> DataError:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    what = "null" if data is None else kinds.get(type(data), "a number")
    if isinstance(data, dict):
        what = "an annotation file"
    return DataError(f"{_name(path)} holds {what}; {wanted}")


def _name(path: str | Path) -> str:
    return repr(str(path))
