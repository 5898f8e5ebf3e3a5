"""``edgecap stream`` with several sources, their sinks, and settings read anew."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from stream_commands import Stream, stream_command

# The whole command with a captioner that needs no model: it tells the mean level and the beams.
CODE = """
import edgecap
from edgecap.cli.main import run
from edgecap.runtime.caption import Caption, Timings

class Level:
    name = "level"

    def options(self, **given):
        return given

    def __call__(self, image, *, channels, beams):
        text = f"a man at level {image.mean():.0f} with {beams or 4} beams"
        return Caption(text, (4, 2), -0.5, 0.9, True, Timings())

edgecap.load = lambda model, **_: Level()
run()
"""


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return stream_command(CODE, tmp_path)


@pytest.fixture
def films(tmp_path: Path) -> list[str]:
    """Two films of ten frames, one level each, the same name in two folders."""
    paths = []
    for folder, level in (("porch", 40), ("yard", 200)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "main.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (64, 48))
        for _ in range(10):
            writer.write(np.full((48, 64, 3), level, np.uint8))
        writer.release()
        paths.append(f"{folder}/main.mp4")
    return paths


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_names_its_source_and_the_log_holds_both(
    stream: Stream, films: list[str], tmp_path: Path
) -> None:
    done = stream(
        *films, "--no-realtime", "--gate", "none", "--sink", "log.db", "--sink", "all.jsonl",
        "--sink", "{camera}-{number}.vtt",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = lines(done.stdout)
    for film, level in zip(films, (40, 200), strict=True):
        own = [event for event in events if event["source"] == film]
        assert len(own) == 10
        for event in own:
            assert int(event["text"].split()[4]) == pytest.approx(level, abs=4)
    assert sorted((tmp_path / "all.jsonl").read_text().splitlines()) == sorted(
        done.stdout.splitlines()
    )
    log = sqlite3.connect(tmp_path / "log.db")
    found = log.execute("SELECT source, count(*) FROM captions GROUP BY source").fetchall()
    log.close()
    assert found == [(film, 10) for film in sorted(films)]
    assert {path.name for path in tmp_path.glob("*.vtt")} == {"main-1.vtt", "main-2-2.vtt"}
    summary = done.stderr.splitlines()
    assert [line.partition(":")[0] for line in summary] == ["main", "main-2"]


def test_a_camera_that_is_lost_leaves_the_others(stream: Stream, films: list[str]) -> None:
    done = stream(films[0], "/dev/video987", "--reconnects", "0", "--no-realtime", "--gate", "none")
    assert done.returncode == 0, done.stderr
    assert any(line.get("notice") == "lost" for line in lines(done.stdout))
    assert sum("text" in line and "notice" not in line for line in lines(done.stdout)) == 10


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--sink", "out.mp4"], "out-{camera}.mp4"),
        (["--sink", "rtsp-server:8554"], "holds one camera and 2 are given"),
        (["--sink", "film.vtt"], "{camera} or {number}"),
        (["--camera", "porch"], "give each source a name of its own"),
        (["--camera", "porch", "--camera", "porch"], "give each source a name of its own"),
    ],
)
def test_what_cannot_be_shared_is_one_line(
    stream: Stream, films: list[str], arguments: list[str], part: str
) -> None:
    done = stream(*films, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert done.stderr.count("\n") == 1


def test_no_source_is_a_usage_error(stream: Stream) -> None:
    done = stream()
    assert done.returncode == 2
    assert "SOURCE" in done.stderr


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Two static cameras under a profile of their own."""
    (tmp_path / "mine.yaml").write_text("decoding: {beams: 3}\n")
    process = subprocess.Popen(
        [
            sys.executable, "-c", CODE, "stream", "test://static?width=64&height=64",
            "test://static?width=32&height=32", "--profile", "mine.yaml",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )  # fmt: skip
    yield process
    process.kill()
    process.communicate()


def test_hang_up_reads_the_profile_anew(running: subprocess.Popen[str], tmp_path: Path) -> None:
    assert running.stdout is not None
    assert running.stderr is not None

    def next_captions() -> list[dict[str, Any]]:
        """One caption of each camera."""
        found: dict[str, dict[str, Any]] = {}
        while len(found) < 2:
            line = json.loads(running.stdout.readline())
            if "notice" not in line:
                found[line["source"]] = line
        return list(found.values())

    assert all("with 3 beams" in event["text"] for event in next_captions())
    (tmp_path / "mine.yaml").write_text("decoding: {beam: 2}\n")
    running.send_signal(signal.SIGHUP)
    refused = running.stderr.readline()
    assert "all stays as it is" in refused
    assert "beams" in refused, "the key that was meant"
    (tmp_path / "mine.yaml").write_text(
        "stream: {max_age: 50 s}\ndecoding: {beams: 2}\n"
        "hazards: {man: {say: a man, words: [man]}}\n"
    )
    running.send_signal(signal.SIGHUP)
    for event in next_captions():  # nothing moves: only new settings make a first caption
        assert event["reason"] == "first"
        assert "with 2 beams" in event["text"]
        assert [note["what"] for note in event["notes"]] == ["man"]
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 0
