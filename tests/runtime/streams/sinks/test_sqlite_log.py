"""The SQLite log, read by a second connection and under a disk that is full."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.sinks.base import Outlet
from edgecap.runtime.streams.sinks.sqlite_log import SqliteLog
from edgecap.runtime.streams.told import Note, tell

Make = Callable[..., Event]


def rows(path: Path, query: str = "SELECT text FROM captions ORDER BY id") -> list[Any]:
    log = sqlite3.connect(path)
    try:
        return log.execute(query).fetchall()
    finally:
        log.close()


def test_rows_can_be_read_while_the_log_is_open(tmp_path: Path, make_event: Make) -> None:
    path = tmp_path / "log.db"
    log = SqliteLog(path)
    event = make_event("ein Bär", score=float("-inf"), confidence=float("nan"), pts=None)
    log.write(event)
    note = Note("alert", "pedestrian", "man", "Careful: a man.")
    log.write(tell(make_event("a man", 1), verdict="refresh", sentence="A man.", notes=(note,)))
    assert rows(path) == [("ein Bär",), ("a man",)]
    (stored,) = rows(path, "SELECT event, pts, confidence, sure FROM captions WHERE id = 1")
    assert json.loads(stored[0])["text"] == "ein Bär"
    assert stored[1:] == (None, None, 1)
    found = rows(
        path,
        "SELECT kind, what, captions.sentence, verdict FROM notes"
        " JOIN captions ON captions.id = caption",
    )
    assert found == [("alert", "pedestrian", "A man.", "refresh")]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]
    log.notice(Notice("porch", "lost", "the camera was lost", 5.0, {"attempt": 1}))
    assert rows(path, "SELECT * FROM notices") == [
        (5.0, "porch", "lost", "the camera was lost", '{"attempt": 1}')
    ]
    log.close()
    assert not Path(f"{path}-wal").exists()


def test_a_log_is_continued_and_kept_short(tmp_path: Path, make_event: Make) -> None:
    path = tmp_path / "log.db"
    note = (Note("alert", "dog", "dog", "A dog."),)
    for start in (0, 5):
        log = SqliteLog(path, keep=4)
        for frame in range(start, start + 5):
            log.write(tell(make_event(f"frame {frame}", frame), notes=note))
        log.close()
    assert rows(path) == [(f"frame {frame}",) for frame in (6, 7, 8, 9)]
    assert rows(path, "SELECT count(*) FROM notes") == [(4,)]


def test_a_full_disk_loses_events_and_not_the_log(
    small_disk: Path, make_event: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = small_disk / "log.db"
    log = SqliteLog(path)
    log.write(make_event("before"))
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:  # until there is no space left
            out.write(bytes(4096))
    outlet = Outlet(log, 100, patient=True)
    for frame in range(50):
        outlet.offer(make_event("x" * 3000, frame), lambda: False)
    while outlet.undelivered + len(rows(path)) < 51:
        pass
    lost = outlet.undelivered
    assert lost > 0
    assert caplog.text.count("disk is full") == 1
    ballast.unlink()
    outlet.offer(make_event("after"), lambda: False)
    outlet.close(deadline=time.monotonic() + 60)
    assert outlet.undelivered == lost
    texts = [text for (text,) in rows(path)]
    assert texts[0] == "before"
    assert texts[-1] == "after"
    assert len(texts) == 52 - lost
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("content", [b"no database, only text " * 9, None])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.db"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE mine (x)")
        other.commit()
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(SinkError, match="give a new file"):
        SqliteLog(path)
    assert path.read_bytes() == before


def test_bad_places_and_options(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match="cannot be used as a log"):
        SqliteLog(tmp_path / "no" / "folder.db")
    with pytest.raises(SinkError, match="keep is 0"):
        SqliteLog(tmp_path / "log.db", keep=0)
