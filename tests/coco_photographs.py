"""COCO's photographs beside this checkout, with what people wrote about them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path


def photographs(shared: Path) -> Iterator[tuple[Path, list[str]]]:
    """COCO's photographs of one collection, with what people wrote about each."""
    folder = shared / "data" / "coco_captions"
    written: dict[str, list[str]] = {}
    with (folder / "captions.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            written.setdefault(row["image"], []).append(row["caption"].lower())
    for name in sorted(written):
        yield folder / "images" / name, written[name]
