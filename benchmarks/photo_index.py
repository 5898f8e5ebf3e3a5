"""Photographs a second into an index, and what a kill in the middle costs.

    python benchmarks/photo_index.py PHOTOS --most 1000 --out benchmarks/records/photo_index.json

PHOTOS is a folder. The installed command runs in its own process each time: with several beam
widths, then killed (SIGKILL) when it has written a third and started again. Exit code 1: under 20
photographs a second with the default options, or a photograph done twice.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from record import command, machine, write_atomically

import edgecap
from edgecap.photos.walk import find

LEAST_A_SECOND = 20.0


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--most", type=int, default=1000, show_default=True, help="Photographs taken.")
@click.option("--beams", "widths", default="1,2,4", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Where the JSON record goes.")
def main(photos: Path, most: int, widths: str, out: Path | None) -> None:
    """Index photographs with several beam widths; kill one run and finish it."""
    taken = find(photos).photographs[:most]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        for photograph in taken:
            shutil.copy(photograph.path, folder)
        runs = {f"{beams} beams": whole(folder, "--beams", beams) for beams in widths.split(",")}
        usual = whole(folder)
        killed = kill_and_finish(folder, len(taken))
    choice = edgecap.load().engine_choice
    record = {
        "command": command("benchmarks/photo_index.py"),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "engine": choice.lines()[0],
        "photographs": {
            "count": len(taken),
            "megabytes": round(sum(photograph.size for photograph in taken) / 1e6, 1),
        },
        "default_options": usual,
        "beam_widths": runs,
        "killed_and_started_again": killed,
    }
    if out is not None:
        write_atomically(out, json.dumps(record, indent=1) + "\n")
    click.echo(json.dumps(record, indent=1))
    if usual["photographs_per_second"] < LEAST_A_SECOND or killed["done_twice"]:
        raise SystemExit(1)


def index(folder: Path, database: Path, *options: str) -> list[str]:
    script = Path(sys.executable).with_name("edgecap")
    return [str(script), "index", str(folder), "--database", str(database), "--json", *options]


def whole(folder: Path, *options: str) -> dict[str, Any]:
    """One run into a new index; the rate is of the whole process, start included."""
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "photos.db"
        begin = time.perf_counter()
        done = subprocess.run(
            index(folder, database, *options), capture_output=True, text=True, check=True
        )
        wall = time.perf_counter() - begin
        report = json.loads(done.stdout)
        begin = time.perf_counter()
        again = subprocess.run(
            index(folder, database, *options), capture_output=True, text=True, check=True
        )
        unchanged = time.perf_counter() - begin
        assert json.loads(again.stdout)["unchanged"] == report["found"]
        return {
            "captioned": report["captioned"],
            "seconds": round(wall, 2),
            "photographs_per_second": round(report["found"] / wall, 1),
            "seconds_of_a_run_with_nothing_new": round(unchanged, 2),
            "index_megabytes": round(database.stat().st_size / 1e6, 2),
        }


def kill_and_finish(folder: Path, count: int) -> dict[str, Any]:
    """Kill a run that has written a third; what it wrote must be left alone by the next."""
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "photos.db"
        running = subprocess.Popen(
            index(folder, database), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while running.poll() is None and len(written(database)) < count // 3:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        code = running.wait()
        before = written(database)
        done = subprocess.run(index(folder, database), capture_output=True, text=True, check=True)
        report = json.loads(done.stdout)
        after = written(database)
        return {
            "exit_code_of_the_killed": code,
            "written_before_the_kill": len(before),
            "captioned_after_it": report["captioned"],
            "in_the_index": len(after),
            "done_twice": sum(after[path] != at for path, at in before.items()),
        }


def written(database: Path) -> dict[str, float]:
    """path -> when it was captioned, as another process sees it."""
    if not database.exists():
        return {}
    connection = sqlite3.connect(database, timeout=10)
    try:
        return dict(connection.execute("SELECT path, captioned_at FROM photographs"))
    except sqlite3.OperationalError:  # not made yet
        return {}
    finally:
        connection.close()


if __name__ == "__main__":
    main()
