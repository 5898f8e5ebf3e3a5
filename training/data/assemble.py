"""From what a layout's files name to a ``CaptionDataset``: the same rules for every layout."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from edgecap.runtime.errors import DataError
from edgecap.training.data.base import CaptionDataset, CaptionedImage, Problems

# A caption that ends in one of these has lost the rest of its sentence.
_DANGLING = frozenset(["a", "an", "the", "of", "and", "or", "while"])
_LOST = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufffd]")  # control characters, U+FFFD
HASH_SPLITS = ("train", "val", "test")


def assemble(
    name: str,
    folder: Path,
    split: str,
    named: Iterable[CaptionedImage],
    *,
    strict: bool,
    skip_damaged: bool,
    bad_boxes: tuple[str, ...] = (),
    classes: tuple[str, ...] = (),
) -> CaptionDataset:
    """Keep the images that have a file and captions, count the rest, tidy the captions' spaces.

    With ``strict``, an image without file or captions is a DataError. A split without a single
    usable image always is.
    """
    images: list[CaptionedImage] = []
    missing: list[str] = []
    without: list[str] = []
    damaged: list[tuple[str, str]] = []
    there: dict[Path, bool] = {}
    for image in named:
        texts: list[str] = []
        for caption in image.captions:
            text = " ".join(caption.split())
            bad = is_damaged(text)
            if bad:
                damaged.append((image.id, text))
            if text and not (bad and skip_damaged):
                texts.append(text)
        if image.path not in there:  # many regions share a file
            there[image.path] = image.path.is_file()
        if not there[image.path]:
            missing.append(image.id)
        elif not texts:
            without.append(image.id)
        else:
            captions = tuple(texts)
            tidy = captions == image.captions  # spares millions of regions a copy
            images.append(image if tidy else replace(image, captions=captions))
    problems = Problems(tuple(missing), tuple(without), tuple(damaged), bad_boxes)
    if strict and (missing or without or bad_boxes):
        raise DataError(
            f"split {split!r} of {str(folder)!r} has {problems}; mend the folder or open it "
            "without strict"
        )
    if not images:
        raise DataError(
            f"split {split!r} of {str(folder)!r} has no image with file and captions: {problems}; "
            "is the folder of pictures complete?"
        )
    return CaptionDataset(name, folder, split, tuple(images), problems, classes)


def is_damaged(caption: str) -> bool:
    """True for a caption that was cut off: one word or none, or a last word such as "of".

    Scripts that write no spaces (Chinese, Japanese, Thai) have one "word" a sentence, so a
    single word of more than one letter counts as cut off in Latin script only. The replacement
    character U+FFFD and control characters mean lost bytes.
    """
    if _LOST.search(caption):
        return True
    words = caption.lower().replace(".", " ").split()
    if len(words) == 1 and len(words[0]) > 1 and not is_latin(caption):
        return False
    return len(words) < 2 or words[-1] in _DANGLING


def is_latin(caption: str) -> bool:
    """Whether every letter is of the Latin script; true where there are no letters."""
    return caption.isascii() or all(
        unicodedata.name(c, "").startswith(("LATIN", "FULLWIDTH LATIN", "FEMININE", "MASCULINE"))
        for c in caption
        if c.isalpha()
    )


def hash_split(name: str, seed: int = 0) -> str:
    """ "train", "val" or "test" (80, 10, 10 %) by ``name`` alone.

    A picture stays where it is when others are added or taken away, on every machine.
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") * 10 >> 64  # 0 to 9, each a tenth
    return "train" if place < 8 else HASH_SPLITS[place - 7]


def parse_seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DataError(f"seed is {text!r}; give a whole number") from None
