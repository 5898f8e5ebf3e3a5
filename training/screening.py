"""What of a recipe's lists is trained on: checks before the first step, kept with the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from edgecap.runtime.errors import DataError, ImageError
from edgecap.training.corpus import SplitSpec, open_part
from edgecap.training.data import CaptionDataset, CaptionedImage, load_pixels
from edgecap.training.data.checks import CheckReport, check_splits

Part = tuple[SplitSpec, list[CaptionedImage]]


@dataclass(frozen=True)
class Screened:
    """images : every training picture, in the recipe's order
    left_out : places in ``images`` of those that cannot or must not be trained on
    validation : each list with its pictures
    """

    images: list[CaptionedImage]
    left_out: tuple[int, ...]
    validation: list[Part]


def screen(
    train: list[SplitSpec],
    validation: list[SplitSpec],
    kept: Path,
    *,
    strict: bool = False,
    threads: int = 2,
) -> Screened:
    """Leave out of training what cannot be decoded, what a validation list has, too, and copies;
    of validation only what cannot be decoded. Says so in one line.

    kept : a JSON file of what was left out; made here, and believed where it is there
    strict : raise DataError where anything is wrong
    """
    parts = [(spec, open_part(spec)) for spec in train]
    held = [(spec, open_part(spec)) for spec in validation]
    images = [image for _, part in parts for image in part]
    lists = [[*map(asdict, train)], [*map(asdict, validation)]]
    found = json.loads(kept.read_text()) if kept.exists() else {}
    if found.get("lists") != lists:
        datasets = [part for _, part in (*parts, *held)]
        roles = ["training"] * len(parts) + ["validation"] * len(held)
        report = check_splits(datasets, roles=roles, threads=threads)
        if strict:
            report.raise_if_problems()
        usable = {_key(image) for part in report.usable[: len(parts)] for image in part}
        found = {
            "train": [i for i, image in enumerate(images) if _key(image) not in usable],
            "validation": [
                _undecodable(part, good)
                for (_, part), good in zip(held, report.usable[len(parts) :], strict=True)
            ],
            "lists": lists,
            "pictures": [len(images), *(len(part) for _, part in held)],
        }
        _say(report, len(found["train"]), len(images))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(found))
    if found["pictures"] != [len(images), *(len(part) for _, part in held)]:
        raise DataError(
            f"{kept} was made for other lists: pictures came or went since this run began; name "
            "another folder"
        )
    if len(found["train"]) == len(images):
        raise DataError(
            "no training picture is left: they are damaged, or in a validation list; see "
            "`edgecap data check`"
        )
    rest = [
        (spec, [image for i, image in enumerate(part) if i not in bad])
        for (spec, part), bad in zip(held, found["validation"], strict=True)
    ]
    return Screened(images, tuple(found["train"]), rest)


def _key(image: CaptionedImage) -> tuple[object, ...]:
    return image.path, image.span, image.box, image.id


def _undecodable(part: CaptionDataset, usable: CaptionDataset) -> list[int]:
    good = {_key(image) for image in usable}
    return [i for i, image in enumerate(part) if _key(image) not in good and not _opens(image)]


def _opens(image: CaptionedImage) -> bool:
    try:
        load_pixels(image)
    except ImageError:
        return False
    return True


def _say(report: CheckReport, left_out: int, pictures: int) -> None:
    problems = [
        f"{count} {kind} (such as {report.examples[kind][0]})"
        for kind, count in report.problems.items()
    ]
    if problems:
        print(
            f"data: {', '.join(problems)}; {left_out} of {pictures} training pictures are left out",
            flush=True,
        )
