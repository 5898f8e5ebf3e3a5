"""Caption tables of the Flickr sets: image name -> captions, in the order of the file."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.files import read_text

_NUMBERED = re.compile(r"\s*(\d+)\s+(\S.*)")


def read_token_file(path: Path) -> dict[str, list[str]]:
    """``name.jpg#0<TAB>caption`` a line, as ``Flickr8k.token.txt`` and ``*.token`` have it."""
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        head, tab, text = line.partition("\t")
        image, mark, index = head.strip().rpartition("#")
        if not tab or not mark or not image or not index.isdigit():
            raise _damaged(path, number, "name.jpg#0, a tab and a caption")
        captions.setdefault(image, []).append(text)
    return captions


def read_image_caption_csv(path: Path) -> dict[str, list[str]]:
    """CSV with the header ``image,caption``, as Kaggle's ``captions.txt`` has it."""
    captions: dict[str, list[str]] = {}
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    if not {"image", "caption"} <= set(rows.fieldnames or ()):
        found = ", ".join(rows.fieldnames or ()) or "nothing"
        raise DataError(f"the header of {str(path)!r} is {found}; it must have image, caption")
    try:
        for row in rows:
            if not row["image"] or row["caption"] is None:
                raise _damaged(path, rows.line_num, "an image and a caption")
            captions.setdefault(row["image"].strip(), []).append(row["caption"])
    except csv.Error as error:
        raise _damaged(path, rows.line_num, f"an image and a caption ({error})") from None
    return captions


def read_pipe_table(path: Path) -> dict[str, list[str]]:
    """``image_name| comment_number| comment``, as Kaggle's ``results.csv`` of Flickr30k has it.

    Quotes mean nothing in it. One line of the published file lacks its second bar
    ("2199200615.jpg| 4   A dog runs ..."); number and caption are told apart there all the same.
    """
    lines = read_text(path).split("\n")
    header = [field.strip() for field in lines[0].split("|")]
    if header != ["image_name", "comment_number", "comment"]:
        raise DataError(
            f"the header of {str(path)!r} is {lines[0]!r}; it must be "
            "image_name| comment_number| comment"
        )
    captions: dict[str, list[str]] = {}
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        image, _, rest = line.partition("|")
        index, bar, text = rest.partition("|")
        if not bar and (found := _NUMBERED.fullmatch(rest.rstrip())):
            index, text = found.groups()
        elif not bar:
            raise _damaged(path, number, "an image, a number and a caption between bars")
        if not image.strip() or not index.strip().isdigit():
            raise _damaged(path, number, "an image, a number and a caption between bars")
        captions.setdefault(image.strip(), []).append(text)
    return captions


def read_names(path: Path) -> list[str]:
    """One file name a line, each once; Flickr30k Entities leaves out ``.jpg``, which is added."""
    names = (line.strip() for line in read_text(path).splitlines())
    return list(dict.fromkeys(n if "." in n else f"{n}.jpg" for n in names if n))


def _damaged(path: Path, line: int, wanted: str) -> DataError:
    return DataError(f"line {line} of {str(path)!r} is damaged; it must have {wanted}")
