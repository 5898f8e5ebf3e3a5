"""How long a search over 100,000 captions takes.

    python benchmarks/photo_search.py PHOTOS --out benchmarks/records/photo_search.json

PHOTOS is a folder. Its photographs are captioned once; their captions are repeated, each under its
own path, until the index has 100,000. In a second index no two are the same: two captions are
joined to one, so that it has twice the words. Exit code 1: the 99th percentile of a query over the
repeated captions is 50 ms or more.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np
from record import command, machine, spread, write_atomically

import edgecap
from edgecap.photos import Index, IndexOptions, search
from edgecap.photos.database import Database
from edgecap.photos.schema import Row

QUERIES = (
    "dog on the beach",
    "dog",
    "man",
    "a man in a red shirt",
    "two dogs running through the snow",
    "girl jumping into a swimming pool",
    "bicycle",
    "zebra",
    "purple dog submarine",
    "people standing street city building car",
)
ROUNDS = 30
MOST_MS = 50.0


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rows", "count", type=int, default=100_000, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(photos: Path, count: int, out: Path | None) -> None:
    """Fill an index with repeated captions and search it."""
    with tempfile.TemporaryDirectory() as scratch:
        path, pairs = Path(scratch) / "photos.db", Path(scratch) / "pairs.db"
        rows = captioned(photos, path)
        texts = sorted({row.text for row in rows})
        fill(path, repeated(rows, count))
        queries = {query: times(path, query) for query in QUERIES}
        begin = time.perf_counter()
        fill(pairs, joined(rows[0], texts, count))
        record = {
            "command": command("benchmarks/photo_search.py"),
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "captions": count,
            "distinct_captions": len(texts),
            "index_megabytes": round(path.stat().st_size / 1e6, 1),
            "rounds": ROUNDS,
            "search_ms": queries,
            "whole_command_ms": whole(path),
            "all_distinct": {
                "seconds_to_write": round(time.perf_counter() - begin, 1),
                "index_megabytes": round(pairs.stat().st_size / 1e6, 1),
                "search_ms": {query: times(pairs, query) for query in QUERIES},
            },
        }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(record, indent=1))
    if max(result["p99"] for result in queries.values()) >= MOST_MS:
        raise SystemExit(1)


def captioned(photos: Path, path: Path) -> list[Row]:
    """Rows of a folder's photographs, captioned into a new index."""
    index = Index(path, captioner=edgecap.load(), options=IndexOptions(beams=1))
    index.update(photos)
    with Database(path, write=True) as database:
        return [row for row in database.rows() if not row.failure]


def fill(path: Path, rows: Iterator[Row]) -> None:
    """Write rows, as an indexer that is fed faster than any model can."""
    with Database(path, write=True) as database:
        database.maker("none", "none", 1, 1)
        while some := list(islice(rows, 10_000)):
            database.put(some)


def repeated(rows: list[Row], count: int) -> Iterator[Row]:
    for number in range(len(rows), count):
        yield rows[number % len(rows)]._replace(path=place(number))


def joined(like: Row, texts: list[str], count: int) -> Iterator[Row]:
    for number in range(min(count, len(texts) ** 2)):
        turn, first = divmod(number, len(texts))
        second = (first + 1 + turn) % len(texts)
        text = f"{texts[first]} and {texts[second]}"
        yield like._replace(path=place(number), text=text)


def place(number: int) -> str:
    return f"/photos/{number % 97:02}/{number:06}.jpg"


def times(path: Path, query: str) -> dict[str, Any]:
    """Milliseconds of ``edgecap.photos.search``, the opening of the file included."""
    taken = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        answer = search(query, database=path)
        taken.append((time.perf_counter() - begin) * 1e3)
    return {**spread(np.array(taken)), "hits": len(answer.hits), "matched": answer.matched}


def whole(path: Path) -> dict[str, float]:
    """Milliseconds of the command in its own process, and of one that only shows the version."""
    script = str(Path(sys.executable).with_name("edgecap"))
    taken = []
    for words in (["search", "dog on the beach", "--database", str(path)], ["--help"]):
        rounds = []
        for _ in range(10):
            begin = time.perf_counter()
            subprocess.run([script, *words], capture_output=True, check=True)
            rounds.append((time.perf_counter() - begin) * 1e3)
        taken.append(float(np.median(rounds)))
    return {"search": round(taken[0], 1), "help_alone": round(taken[1], 1)}


if __name__ == "__main__":
    main()
