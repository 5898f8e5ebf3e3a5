"""Checks before training: what a data set names and lacks, cannot show, or has on two sides.

Free of torch. ``check_splits`` reads every picture once (bytes for the comparison, pixels to see
that they decode) in a few threads, and says what it found with counts and examples. A picture
that decodes but shows damage, such as a lower half from another picture, is not noticed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from edgecap.runtime.errors import DataError, ImageError
from edgecap.training.data.assemble import is_damaged, is_latin
from edgecap.training.data.base import (
    CaptionDataset,
    CaptionedImage,
    clip_box,
    read_bytes,
)
from edgecap.training.progress import track

EXAMPLES = 5
CHUNK = 256

MISSING = "images without a file"
UNCAPTIONED = "images without captions"
UNDECODABLE = "images that cannot be decoded"
EMPTY = "empty captions"
DAMAGED = "damaged captions"
BOXES = "boxes outside their picture"
SAME_IDS = "ids given twice in a split"
SAME_PICTURES = "copies of a picture in a split"
LEAKING_IDS = "ids in two splits"
LEAKING_PICTURES = "pictures in two splits"
OTHER_SCRIPTS = "captions not in Latin script"

KINDS = (
    MISSING,
    UNCAPTIONED,
    UNDECODABLE,
    EMPTY,
    DAMAGED,
    BOXES,
    SAME_IDS,
    SAME_PICTURES,
    LEAKING_IDS,
    LEAKING_PICTURES,
    OTHER_SCRIPTS,
)
LEAKS = (LEAKING_IDS, LEAKING_PICTURES)
NOTICES = (OTHER_SCRIPTS,)  # said, never a problem

# One picture file: many regions share it.
_Source: TypeAlias = tuple[Path, "tuple[int, int] | None"]


@dataclass(frozen=True)
class SplitSize:
    """How much a data set holds; ``role`` is the side it was checked on."""

    name: str
    role: str
    images: int
    captions: int


@dataclass(frozen=True)
class CheckReport:
    """What ``check_splits`` found.

    counts : kind (``KINDS``) -> how many
    examples : kind -> up to five of them, as "NAME SPLIT: which"
    usable : the same data sets without what was found, for training. Of copies the first stays;
        a picture on two sides stays on the later one, so give training lists first.
    pictures, decoded, hashed : files looked at, and whether they were decoded and compared
    """

    sizes: tuple[SplitSize, ...]
    counts: dict[str, int]
    examples: dict[str, tuple[str, ...]]
    usable: tuple[CaptionDataset, ...] = field(repr=False)
    pictures: int = 0
    decoded: bool = True
    hashed: bool = True

    @property
    def problems(self) -> dict[str, int]:
        """Kind -> count of what is wrong; without mere notices and zeros."""
        return {k: n for k, n in self.counts.items() if n and k not in NOTICES}

    @property
    def leaks(self) -> dict[str, int]:
        return {k: n for k, n in self.problems.items() if k in LEAKS}

    def raise_if_leaking(self) -> None:
        """DataError where a picture is on two sides: scores on one would be remembered."""
        self._raise(self.leaks, "take them out of one side")

    def raise_if_problems(self) -> None:
        self._raise(self.problems, "mend the data set or go on without --strict")

    def _raise(self, found: dict[str, int], advice: str) -> None:
        if found:
            parts = [f"{n} {kind} (such as {self.examples[kind][0]})" for kind, n in found.items()]
            raise DataError(f"the data has {', '.join(parts)}; {advice}")


def check_splits(
    datasets: Sequence[CaptionDataset],
    *,
    roles: Sequence[str] | None = None,
    decode: bool = True,
    compare: bool = True,
    threads: int | None = None,
) -> CheckReport:
    """Check data sets alone and against each other, with a progress bar on a terminal.

    roles : one per data set; what has the same role is one side, so that it may share pictures
        without leaking. Their ``split`` if not given.
    decode : decode every picture; else only missing files are noticed
    compare : compare the files' bytes. With neither, no picture is opened.
    threads : how many read at a time; the number of CPUs, at most 8, if not given
    """
    sides = [dataset.split for dataset in datasets] if roles is None else list(roles)
    if len(sides) != len(datasets):
        raise DataError(f"{len(sides)} roles for {len(datasets)} data sets; give one for each")
    sources = {_source(image): image for dataset in datasets for image in dataset}
    facts: dict[_Source, _Facts] = {}
    if decode or compare:
        facts = _read_all(sources, decode, threads or min(8, os.cpu_count() or 1))
    places = _Places(facts if compare else {})
    for dataset, side in zip(datasets, sides, strict=True):
        places.note(dataset, side)
    found = _Findings()
    places.report_leaks(found)
    usable = tuple(
        _usable(dataset, side, facts, places, found)
        for dataset, side in zip(datasets, sides, strict=True)
    )
    sizes = tuple(
        SplitSize(_label(d), side, len(d), sum(len(image.captions) for image in d))
        for d, side in zip(datasets, sides, strict=True)
    )
    examples = {kind: tuple(texts) for kind, texts in found.examples.items()}
    return CheckReport(sizes, found.counts, examples, usable, len(sources), decode, compare)


class _Findings:
    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self.examples: dict[str, list[str]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(example)


@dataclass(frozen=True, slots=True)
class _Facts:
    digest: bytes
    error: str = ""
    size: tuple[int, int] | None = None  # width, height


class _Places:
    """Which ids and pictures lie on which side: key -> side -> the first id seen there.

    An id belongs to its folder: "1.jpg" of two folders is not one picture.
    """

    def __init__(self, facts: dict[_Source, _Facts]) -> None:
        self.facts = facts
        self.ids: dict[tuple[Path, str], dict[str, str]] = {}
        self.pictures: dict[object, dict[str, str]] = {}
        self.seen: set[tuple[Path, str, str]] = set()
        self.first: dict[tuple[object, str], _Source] = {}

    def note(self, dataset: CaptionDataset, side: str) -> None:
        folder = dataset.folder.resolve()
        for image in dataset:
            self.ids.setdefault((folder, image.id), {}).setdefault(side, image.id)
            self.pictures.setdefault(self._picture(image), {}).setdefault(side, image.id)

    def report_leaks(self, found: _Findings) -> None:
        tables: tuple[tuple[str, Iterable[dict[str, str]]], ...] = (
            (LEAKING_IDS, self.ids.values()),
            (LEAKING_PICTURES, self.pictures.values()),
        )
        for kind, table in tables:
            for sides in table:
                if len(sides) > 1:
                    found.add(kind, " = ".join(f"{side}: {key}" for side, key in sides.items()))

    def keeps(
        self, image: CaptionedImage, folder: Path, side: str, label: str, found: _Findings
    ) -> bool:
        """Whether ``image`` is the first of its kind on the last side it lies on."""
        source, picture = _source(image), self._picture(image)
        again = (folder, image.id, side) in self.seen
        self.seen.add((folder, image.id, side))
        first = self.first.setdefault((picture, side), source)
        if again:
            found.add(SAME_IDS, f"{label}: {image.id}")
        elif first != source:
            other = self.pictures[picture][side]
            found.add(SAME_PICTURES, f"{label}: {image.id} = {other}")
        last = [*self.ids[folder, image.id]][-1], [*self.pictures[picture]][-1]
        return not again and first == source and last == (side, side)

    def _picture(self, image: CaptionedImage) -> object:
        """The bytes' hash, or the place of the file where nothing was compared."""
        source = _source(image)
        return self.facts[source].digest or source if source in self.facts else source


def _usable(
    dataset: CaptionDataset,
    side: str,
    facts: dict[_Source, _Facts],
    places: _Places,
    found: _Findings,
) -> CaptionDataset:
    label, folder = _label(dataset), dataset.folder.resolve()
    _add_known(dataset, label, found)
    images: list[CaptionedImage] = []
    for image in dataset:
        found_scripts = [text for text in image.captions if not is_latin(text)]
        for text in found_scripts:
            found.add(OTHER_SCRIPTS, f"{label}: {image.id}: {text!r}")
        fact = facts.get(_source(image))
        keeps = places.keeps(image, folder, side, label, found)
        if fact is not None and fact.error:
            found.add(UNDECODABLE, f"{label}: {image.id}: {fact.error}")
            keeps = False
        elif image.box and fact and fact.size and clip_box(image.box, *fact.size) is None:
            found.add(BOXES, f"{label}: {image.id}: {image.box} in {fact.size}")
            keeps = False
        captions = tuple(text for text in image.captions if not is_damaged(text))
        if keeps and captions:
            images.append(replace(image, captions=captions))
    return replace(dataset, images=tuple(images))


def _add_known(dataset: CaptionDataset, label: str, found: _Findings) -> None:
    """What the reader of the layout found already."""
    problems = dataset.problems
    for key in problems.missing_files:
        found.add(MISSING, f"{label}: {key}")
    for key in problems.without_captions:
        found.add(UNCAPTIONED, f"{label}: {key}")
    for key in problems.bad_boxes:
        found.add(BOXES, f"{label}: {key}")
    for key, text in problems.damaged_captions:
        found.add(DAMAGED if text else EMPTY, f"{label}: {key}: {text!r}")


def _label(dataset: CaptionDataset) -> str:
    return f"{dataset.name} {dataset.split}"


def _source(image: CaptionedImage) -> _Source:
    return image.path, image.span


def _read_all(
    sources: dict[_Source, CaptionedImage], decode: bool, threads: int
) -> dict[_Source, _Facts]:
    from edgecap.runtime.image import _quiet_opencv

    images = list(sources.values())
    facts: dict[_Source, _Facts] = {}
    # Threads that each quieten OpenCV and restore its level would leave it quiet for good.
    with _quiet_opencv(), ThreadPoolExecutor(threads) as pool:
        # In chunks, so that a million files do not wait in the pool at once.
        for start in track(range(0, len(images), CHUNK), "reading pictures"):
            part = images[start : start + CHUNK]
            for image, fact in zip(part, pool.map(lambda i: _read(i, decode), part), strict=True):
                facts[_source(image)] = fact
    return facts


def _read(image: CaptionedImage, decode: bool) -> _Facts:
    from edgecap.runtime.image import load_image

    digest = b""
    try:
        data = read_bytes(image)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if not decode:
            return _Facts(digest)
        height, width = load_image(data).shape[:2]
        return _Facts(digest, size=(width, height))
    except ImageError as error:
        return _Facts(digest, str(error))
