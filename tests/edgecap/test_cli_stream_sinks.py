"""``edgecap stream`` with a profile and with sinks."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest
from stream_commands import Stream, stream_command

pytest.importorskip("yaml", reason="PyYAML reads profiles")

# The whole command with a captioner that needs no model: dark pictures show a man.
CODE = """
import edgecap
from edgecap.cli.main import run
from edgecap.runtime.caption import Caption, Timings

class Dark:
    name = "dark"

    def options(self, **given):
        print(given, file=__import__("sys").stderr)
        return given

    def __call__(self, image, *, channels, beams):
        left = int(image[:, : image.shape[1] // 4].mean())
        text = "a man on the road" if image.mean() < 100 else "a road"
        return Caption(f"{text} {left}", (4, 2), -0.5, 0.9, True, Timings())

edgecap.load = lambda model, **_: Dark()
run()
"""


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return stream_command(CODE, tmp_path)


@pytest.fixture
def film(tmp_path: Path) -> str:
    """Two seconds of a light ramp, then two of a dark one."""
    path = tmp_path / "road.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (160, 120))
    ramp = np.empty((120, 160, 3), np.uint8)
    ramp[:] = np.linspace(0, 100, 120, dtype=np.uint8)[:, None, None]
    for frame in range(40):
        writer.write(ramp + np.uint8(150 if frame < 20 else 0))
    writer.release()
    return str(path)


def test_a_profile_and_every_file(stream: Stream, film: str, tmp_path: Path) -> None:
    pytest.importorskip("pysubs2")
    pytest.importorskip("av")
    sinks = ("log.db", "film.vtt", "annotated.mp4", "out.jsonl")
    arguments = [word for sink in sinks for word in ("--sink", sink)]
    done = stream(film, "--no-realtime", "--profile", "driving", *arguments)
    assert done.returncode == 0, done.stderr
    assert "{'beams': 2}" in done.stderr  # the profile's
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event.get("verdict", event) for event in events] == ["said", "said"]
    assert events[0]["notes"] == []
    (note,) = events[1]["notes"]
    assert (note["kind"], note["what"], note["words"]) == ("alert", "pedestrian", "man")
    assert events[1]["sentence"].startswith("Careful, someone on foot. A man on the road")
    assert (tmp_path / "out.jsonl").read_text() == done.stdout
    log = sqlite3.connect(tmp_path / "log.db")
    assert log.execute("SELECT count(*) FROM captions").fetchone() == (2,)
    assert log.execute("SELECT what FROM notes").fetchall() == [("pedestrian",)]
    log.close()
    assert "Careful" in (tmp_path / "film.vtt").read_text()
    capture = cv2.VideoCapture(str(tmp_path / "annotated.mp4"))
    frames = 0
    while capture.grab():
        frames += 1
    assert frames == 40  # every frame, captioned or not


def test_options_win_over_the_profile(stream: Stream, film: str) -> None:
    done = stream(
        film, "--no-realtime", "--profile", "driving", "--beams", "5", "--min-interval", "9"
    )
    assert done.returncode == 2  # the profile's max_age is 1 s
    assert "max_age is 1 s and min_interval 9 s" in done.stderr
    done = stream(film, "--no-realtime", "--profile", "driving", "--beams", "5")
    assert "{'beams': 5}" in done.stderr


def test_zones_are_masked_and_repeats_kept_back(stream: Stream, film: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "stream: {gate: none}\nnovelty: {same: 0.9}\n"
        "privacy: {zones: [[[0, 0], [0.3, 0], [0.3, 1], [0, 1]]]}\n"
    )
    done = stream(film, "--no-realtime", "--profile", "mine.yaml")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["sentence"] for event in events] == ["A road 128.", "A man on the road 128."]


def test_without_a_profile_nothing_is_added(stream: Stream, film: str) -> None:
    done = stream(film, "--no-realtime", "--max-captions", "1")
    assert "verdict" not in json.loads(done.stdout)


def test_bad_input_is_one_line(stream: Stream, film: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("stream: {deadlin: 80 ms}")
    for arguments, part in (
        (["--profile", "racing"], "assistive, driving, smart-home"),
        (["--profile", "bad.yaml"], "did you mean deadline?"),
        (["--sink", "pigeon:post"], "is no sink"),
        (["--sink", "/no/such/folder/x.db"], "cannot be used as a log"),
        (["--sink", "mqtt://bob:hunter22@"], "is no host"),
        (["--sink", "speech:?speed=1"], "speed is 1" if espeak() else "espeak-ng"),
    ):
        done = stream(film, *arguments)
        assert done.returncode == 2, arguments
        assert part in done.stderr
        assert "hunter22" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        assert len(lines) == 1


def espeak() -> bool:
    import shutil

    return shutil.which("espeak-ng") is not None


def test_names_of_cameras() -> None:
    from edgecap.runtime.streams.sinks import camera_name

    for source, name in (
        ("rtsp://***@192.168.1.20:554/porch", "porch"),
        ("/dev/video0", "video0"),
        ("clips/yard.mp4", "yard"),
        ("test://moving", "moving"),
        ("", "camera"),
    ):
        assert camera_name(source) == name
