"""Filling the index: what is done once, what is done again, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from PIL import Image

from edgecap.photos import Index, IndexOptions, LibraryError, Report
from edgecap.runtime.errors import OptionsError

Make = Callable[..., Path]

# Runs the command line, and sends itself a signal when the 30th picture is read, whatever the
# other threads are doing at that moment.
STOPPED = """
import os, signal, sys
from edgecap.cli import main
from edgecap.runtime.captioner import Captioner
real, calls = Captioner.prepare, []
def prepare(self, *arguments, **options):
    calls.append(1)
    if len(calls) == 30:
        os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    return real(self, *arguments, **options)
Captioner.prepare = prepare
main.run(sys.argv[2:])
"""


@pytest.fixture
def update(captioner: Any, tmp_path: Path) -> Callable[..., Report]:
    """Indexes a folder into ``photos.db`` with greedy search."""

    def run(folder: Path, **options: Any) -> Report:
        chosen = IndexOptions(**{"beams": 1, **options})
        return Index(tmp_path / "photos.db", captioner=captioner, options=chosen).update(folder)

    return run


def rows(database: Path, columns: str = "path, text") -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(f"SELECT {columns} FROM described ORDER BY path").fetchall()
    finally:
        connection.close()


def check(database: Path) -> None:
    """SQLite's own checks of the file and of the full-text index."""
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.execute("INSERT INTO captions (captions, rank) VALUES ('integrity-check', 1)")
    connection.close()


def test_captions_are_those_of_the_captioner(
    update: Callable[..., Report], make_photos: Make, captioner: Any, tmp_path: Path
) -> None:
    folder = make_photos(21)
    report = update(folder, beams=2)
    assert (report.found, report.captioned, report.done) == (21, 21, 21)
    found = rows(tmp_path / "photos.db", "path, text, confidence, sure, size")
    assert len(found) == 21
    for path, text, confidence, sure, size in found:
        caption = captioner(path, beams=2)
        assert (text, bool(sure)) == (caption.text, caption.sure)
        assert confidence == pytest.approx(caption.confidence, abs=1e-5)
        assert size == os.path.getsize(path)
    check(tmp_path / "photos.db")


def test_only_what_has_changed(
    update: Callable[..., Report], make_photos: Make, tmp_path: Path
) -> None:
    folder, database = make_photos(12), tmp_path / "photos.db"
    update(folder)
    again = update(folder)
    assert (again.unchanged, again.captioned, again.removed) == (12, 0, 0)
    (folder / "00" / "p000.png").unlink()
    (folder / "00" / "p001.png").rename(folder / "moved.png")
    shutil.copy(folder / "00" / "p002.png", folder / "copied.png")
    os.utime(folder / "00" / "p003.png", ns=(1, 1))
    Image.new("RGB", (9, 9), "red").save(folder / "00" / "p004.png")
    Image.new("RGB", (9, 9), "blue").save(folder / "new.png")
    before = dict(rows(database))
    report = update(folder)
    assert (report.found, report.unchanged, report.captioned) == (13, 8, 2)
    assert (report.reused, report.removed, report.failed) == (3, 2, 0)
    after = dict(rows(database))
    root = folder.resolve()
    assert after[f"{root}/moved.png"] == before[f"{root}/00/p001.png"]
    assert after[f"{root}/copied.png"] == before[f"{root}/00/p002.png"]
    assert set(after) == {str(path) for path in root.rglob("*.png")}
    check(database)


def test_files_that_swap_their_contents(
    update: Callable[..., Report], make_photos: Make, captioner: Any, tmp_path: Path
) -> None:
    folder = make_photos(2)
    update(folder)
    first, _ = sorted(folder.rglob("*.png"))
    first.rename(folder / "x.png")
    Image.new("L", (5, 5), 7).save(first)  # its old bytes are only in x.png now
    report = update(folder)
    assert (report.captioned, report.reused, report.unchanged) == (1, 1, 1)
    for path, text in rows(tmp_path / "photos.db"):
        assert text == captioner(path, beams=1).text


def test_copies_in_one_run_are_captioned_once(
    update: Callable[..., Report], make_photos: Make
) -> None:
    folder = make_photos(3)
    for number in range(30):
        shutil.copy(folder / "00" / f"p00{number % 3}.png", folder / f"copy{number}.png")
    report = update(folder)
    assert (report.captioned, report.reused) == (3, 30)


def test_another_model_or_beam_width_is_another_caption(
    update: Callable[..., Report], make_photos: Make
) -> None:
    folder = make_photos(9)
    update(folder)
    assert update(folder, beams=2, keep_captions=True).unchanged == 9
    assert update(folder, beams=2).captioned == 9
    assert update(folder, beams=2).unchanged == 9


def test_bad_pictures_are_told_once_and_tried_when_they_change(
    update: Callable[..., Report], make_photos: Make, tmp_path: Path
) -> None:
    folder = make_photos(2)
    good = (folder / "00" / "p000.png").read_bytes()
    bomb = bytearray(good)
    bomb[16:24] = (60000).to_bytes(4, "big") * 2  # width and height in a PNG's header
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "cut.png").write_bytes(good[:-20])
    (folder / "text.jpg").write_text("hello")
    (folder / "empty.gif").touch()
    report = update(folder)
    assert (report.captioned, report.failed, report.done) == (2, 4, 6)
    whys = {Path(path).name: why for path, why in report.failures.items()}
    assert "declares 60000 x 60000 pixels" in whys["bomb.png"]
    assert "cut short" in whys["cut.png"]
    assert "is no picture that can be read" in whys["text.jpg"]
    assert "is empty" in whys["empty.gif"]
    again = update(folder)
    assert (again.unchanged, again.kept_failures, again.failures) == (2, 4, {})
    assert update(folder, retry=True).failed == 4
    (folder / "cut.png").write_bytes(good)
    assert update(folder).reused == 1
    (folder / "cut.png").write_bytes(good[:-30])
    assert update(folder).failed == 1
    assert dict(rows(tmp_path / "photos.db"))[str(folder.resolve() / "cut.png")] == ""
    check(tmp_path / "photos.db")


def test_unreadable_folders_are_not_forgotten(
    captioner: Any, unprivileged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = unprivileged / "album" / "locked"
    locked.mkdir(parents=True)
    for path in (locked / "a.png", locked.parent / "b.png", locked.parent / "c.png"):
        Image.new("RGB", (9, 9), "red" if path.name == "a.png" else "blue").save(path)
    database = unprivileged / "photos.db"
    monkeypatch.setattr(captioner, "path", Path(__file__))  # a model that this user may read
    index = Index(database, captioner=captioner)
    assert index.update(locked.parent).captioned == 2
    (locked.parent / "c.png").chmod(0)
    os.utime(locked.parent / "c.png", ns=(5, 5))
    locked.chmod(0)
    report = index.update(locked.parent)
    assert (report.removed, report.failed, len(report.failures)) == (0, 1, 2)
    assert len(rows(database)) == 3
    locked.chmod(0o700)
    locked.parent.chmod(0)
    with pytest.raises(LibraryError, match="cannot be read: Permission denied"):
        index.update(locked.parent)
    locked.parent.chmod(0o700)


def test_a_folder_whose_disk_is_missing(
    update: Callable[..., Report], make_photos: Make, tmp_path: Path
) -> None:
    folder, other = make_photos(3), make_photos(4, "other")
    update(folder)
    update(other)
    shutil.rmtree(folder / "00")
    with pytest.raises(LibraryError, match="has no photographs, the index has 3 of it; if a disk"):
        update(folder)
    assert len(rows(tmp_path / "photos.db")) == 7
    assert update(folder, prune=True).removed == 3
    assert len(rows(tmp_path / "photos.db")) == 4


def test_a_folder_without_pictures_is_told_and_leaves_no_index(
    update: Callable[..., Report], make_photos: Make, tmp_path: Path
) -> None:
    folder = tmp_path / "nothing"
    folder.mkdir()
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(LibraryError, match=r"holds no pictures; give a folder with \.jpg"):
        update(folder)
    assert not (tmp_path / "photos.db").exists()
    update(make_photos(1))
    (folder / "a.png").symlink_to(tmp_path / "photos")
    with pytest.raises(LibraryError, match=r"no pictures.*1 links are left out.*--follow-links"):
        update(folder)
    assert len(rows(tmp_path / "photos.db")) == 1


@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_stopped_in_the_middle_nothing_is_done_twice(
    make_photos: Make, tiny_bundle: Path, captioner: Any, tmp_path: Path, name: str
) -> None:
    folder, database = make_photos(100), tmp_path / "photos.db"
    words = ["index", str(folder), "--database", str(database), "--model", str(tiny_bundle)]
    words += ["--engine", "onnxruntime", "--threads", "1", "--beams", "1"]
    command = [sys.executable, "-c", STOPPED, name, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    survived = dict(rows(database, "path, captioned_at")) if database.exists() else {}
    if name == "SIGINT":
        assert len(survived) <= 32  # what was read when it came, or just then
        assert done.returncode == 130
        assert f"100 photographs: {len(survived)} captioned" in done.stdout or not survived
        left = 100 - len(survived)
        assert f"; {left} are left, run the same command again to go on" in done.stdout
        assert "Traceback" not in done.stderr
    else:
        assert len(survived) % 8 == 0
        assert len(survived) < 32  # those before the 30th picture, in whole batches
        assert done.returncode == -signal.SIGKILL
    index = Index(database, captioner=captioner, options=IndexOptions(beams=1))
    report = index.update(folder)
    assert (report.unchanged, report.captioned) == (len(survived), 100 - len(survived))
    after = dict(rows(database, "path, captioned_at"))
    assert len(after) == 100
    assert {path: after[path] for path in survived} == survived
    check(database)


def test_batches_are_written_as_they_are_made(
    make_photos: Make, captioner: Any, tmp_path: Path
) -> None:
    folder, database = make_photos(60), tmp_path / "photos.db"
    index = Index(database, captioner=captioner, options=IndexOptions(beams=1))

    class Stop(Exception):
        pass

    def stop(report: Report) -> None:
        if report.captioned >= 24:
            raise Stop

    with pytest.raises(Stop):
        index.update(folder, progress=stop)
    assert index.report.captioned == 24
    assert len(rows(database)) == 24
    assert index.update(folder).captioned == 36


def test_two_indexers_at_once(
    update: Callable[..., Report], make_photos: Make, captioner: Any, tmp_path: Path
) -> None:
    folder = make_photos(3)

    def second(report: Report) -> None:
        with pytest.raises(LibraryError, match="another process is writing to"):
            Index(tmp_path / "photos.db", captioner=captioner).update(folder)

    Index(tmp_path / "photos.db", captioner=captioner).update(folder, progress=second)
    assert update(folder).found == 3


def test_a_full_disk(make_photos: Make, captioner: Any, small_disk: Path) -> None:
    folder, database = make_photos(200), small_disk / "photos.db"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 150_000))
    index = Index(database, captioner=captioner, options=IndexOptions(beams=1))
    with pytest.raises(LibraryError, match=r"the disk that holds .*photos\.db is full"):
        index.update(folder)
    written = index.report.captioned
    assert 0 < written < 200
    filler.unlink()
    assert index.update(folder).unchanged == written
    assert len(rows(database)) == 200
    check(database)


def test_memory_that_is_not_there_is_one_picture_less(
    make_photos: Make, captioner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cv2.imdecode

    def imdecode(data: Any, flags: int) -> Any:
        if len(data) == size:
            raise MemoryError
        return real(data, flags)

    folder = make_photos(3)
    victim = folder / "00" / "p001.png"
    victim.write_bytes(victim.read_bytes() + b"\0" * 1000)
    size = victim.stat().st_size
    monkeypatch.setattr(cv2, "imdecode", imdecode)
    report = Index(tmp_path / "photos.db", captioner=captioner).update(folder)
    assert (report.captioned, report.failed) == (2, 1)
    assert "does not fit into memory" in "".join(report.failures.values())


def test_bad_options(captioner: Any, make_photos: Make, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match="workers is 0"):
        IndexOptions(workers=0)
    index = Index(tmp_path / "a.db", captioner=captioner, options=IndexOptions(beams=0))
    with pytest.raises(OptionsError, match="beams is 0"):
        index.update(make_photos(1))
    assert not (tmp_path / "a.db").exists()
