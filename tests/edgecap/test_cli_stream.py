"""``edgecap stream``: its lines, its ends, its errors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "edgecap" / "models" / "default.edgecap"

# The whole command with a captioner that needs no model: it tells the picture's mean level.
WITHOUT_MODEL = """
import edgecap
from edgecap.cli.main import run
from edgecap.runtime.caption import Caption, Timings

class Level:
    def options(self, **given):
        return given

    def __call__(self, image, *, channels, beams):
        return Caption(f"level {image.mean():.0f}", (4, 2), -0.5, 0.9, True, Timings())

edgecap.load = lambda model, **_: Level()
run()
"""
WITH_MODEL = "from edgecap.cli.main import run; run()"
KEYS = {
    "source", "frame", "captured_at", "captured_at_unix", "pts", "text", "tokens", "score",
    "confidence", "sure", "reason", "latency_ms", "dropped", "truncated", "draft",
}  # fmt: skip


def stream(*arguments: str, code: str = WITHOUT_MODEL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, "stream", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )


@pytest.fixture
def running() -> Any:
    """Starts streams in the background; kills what a failed test leaves."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, code: str = WITHOUT_MODEL) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "stream", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for index in range(3):
        image = np.full((24, 32, 3), 100 * index, np.uint8)
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    return tmp_path


def test_one_json_line_for_each_picture(pictures: Path) -> None:
    done = stream(str(pictures))
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["text"] for event in events] == ["level 0", "level 100", "level 200"]
    assert [Path(event["source"]).name for event in events] == ["0.png", "1.png", "2.png"]
    assert all(set(event) == KEYS for event in events)
    assert done.stderr.startswith("3 captions, 3 frames in ")
    assert done.stderr.count("\n") == 1


def test_a_real_clip(shared: Path) -> None:
    clip = shared / "data" / "video_clips" / "driving_highway_960x540.mp4"
    done = stream(str(clip), "--no-realtime", "--gate", "none", "--max-captions", "5")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["frame"] for event in events] == [0, 1, 2, 3, 4]
    assert [event["reason"] for event in events] == ["first", *["always"] * 4]

    done = stream(str(clip), "--no-realtime", "--min-interval", "2")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    gaps = np.diff([event["pts"] for event in events])
    assert len(events) >= 3
    assert np.all(gaps >= 2.0)


def test_duration_and_loop(pictures: Path) -> None:
    done = stream("test://static", "--duration", "0.5")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # nothing changes after the first
    assert "ended: duration" in done.stderr
    done = stream(str(pictures), "--loop", "--max-captions", "7")
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == list(range(7))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["SIGINT", "SIGTERM"]
)
@pytest.mark.parametrize("pace", ["--realtime", "--no-realtime"])
def test_signals_end_after_a_whole_line(
    running: Callable[..., Any], number: int, code: int, pace: str
) -> None:
    process = running("test://moving?width=64&height=64", "--gate", "none", pace)
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(number)
    rest, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(60) == code, errors
    for line in [*lines, *rest.splitlines(keepends=True)]:
        assert line.endswith("\n")
        assert set(json.loads(line)) == KEYS
    assert "ended: stopped" in errors
    assert "Traceback" not in errors


def test_a_camera_that_never_comes_is_given_up_with_its_reason() -> None:
    done = stream("/dev/video987", "--reconnects", "1")
    assert done.returncode == 2
    assert [json.loads(line)["notice"] for line in done.stdout.splitlines()] == ["lost"]
    first, second, last = done.stderr.splitlines()
    assert first.endswith("waiting for it")
    assert "attempt 1 of 1" in second
    assert "/dev/video987 is not there" in last
    assert "given up after 1 attempts" in last


def test_hang_up_reloads_the_model_and_user_1_asks_for_a_caption(
    running: Callable[..., Any],
) -> None:
    """Nothing changes in the picture: only what is asked for is captioned."""
    process = running("test://static?width=64&height=64", "--max-captions", "3")

    def events() -> list[dict[str, Any]]:
        found = []
        while not found or "notice" in found[-1]:
            found.append(json.loads(process.stdout.readline()))
        return found

    assert events()[-1]["reason"] == "first"
    process.send_signal(signal.SIGUSR1)
    assert events()[-1]["reason"] == "asked"
    process.send_signal(signal.SIGHUP)
    notice = json.loads(process.stdout.readline())
    assert (notice["notice"], "captions come from" in notice["text"]) == ("model", True)
    process.send_signal(signal.SIGUSR1)
    assert events()[-1]["reason"] == "asked"
    assert process.wait(60) == 0


def test_a_model_that_has_gone_leaves_the_old_one_at_work(
    running: Callable[..., Any], tmp_path: Path
) -> None:
    model = tmp_path / "mine.edgecap"
    model.write_bytes(BUNDLE.read_bytes())
    process = running(
        "test://static?width=64&height=64", "--model", str(model), "--threads", "1",
        "--max-captions", "3", code=WITH_MODEL,
    )  # fmt: skip
    assert json.loads(process.stdout.readline())["reason"] == "first"
    model.unlink()
    process.send_signal(signal.SIGHUP)
    assert "all stays as it is" in process.stderr.readline()
    process.send_signal(signal.SIGUSR1)
    assert json.loads(process.stdout.readline())["reason"] == "asked"
    model.write_bytes(BUNDLE.read_bytes())
    process.send_signal(signal.SIGHUP)
    assert json.loads(process.stdout.readline())["notice"] == "model"
    process.send_signal(signal.SIGUSR1)
    assert json.loads(process.stdout.readline())["reason"] in ("asked", "changed")
    assert process.wait(60) == 0


def test_a_deadline_ends_in_time_and_is_counted() -> None:
    done = stream(
        "test://flashing?frames=30", "--no-realtime", "--gate", "none", "--deadline-ms", "1",
        "--threads", "1", code=WITH_MODEL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) == 30
    assert all(event["truncated"] for event in events), "no caption takes a millisecond"
    assert "30 truncated" in done.stderr
    assert "30 deadlines missed" in done.stderr


def test_a_reader_that_leaves_ends_the_stream(running: Callable[..., Any]) -> None:
    process = running("test://moving?width=64&height=64", "--gate", "none")
    assert process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(60) == 0
    assert "ended: sinks gone" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("pace", ["--realtime", "--no-realtime"])
def test_ctrl_c_while_the_reader_has_stalled(pace: str) -> None:
    """The pipe is full and nobody reads: the stream still ends, and gives up what waits."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b" " * 4096)
    os.set_blocking(writing, True)
    code = WITHOUT_MODEL.replace(
        "        return Caption", "        print('begun', file=sys.stderr)\n        return Caption"
    )
    address = "test://moving?width=64&height=64"
    with subprocess.Popen(
        [sys.executable, "-uc", "import sys\n" + code, "stream", address, "--gate", "none", pace],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(60) == 130
    assert "not delivered (stdout)" in errors
    assert "Traceback" not in errors
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["/no/such/clip.mp4"], "does not exist"),
        (["carrier://0"], "csi://, rtsp://"),
        (["/dev/video987", "--no-wait"], "is not there"),
        (["rtsp://bob:hunter22@127.0.0.1:9/x", "--no-wait"], "rtsp://***@127.0.0.1:9/x cannot be"),
        (["test://static", "--min-interval", "-1"], "min_interval"),
        (["test://static", "--max-captions", "0"], "max_captions"),
        (["test://static", "--reconnects", "-1"], "reconnects"),
        (["test://static", "--gate", "magic"], "magic"),
        (["test://static", "--size", "big"], "WIDTHxHEIGHT"),
        (["test://static", "--deadline-ms", "-5"], "--deadline-ms is -5; give milli"),
        ([__file__], "no video that can be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], part: str) -> None:
    done = stream(*arguments)
    assert done.returncode == 2
    assert part in done.stderr
    assert "hunter22" not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    if "--gate" not in arguments:  # a usage error is told by click, with the usage
        assert done.stderr.count("\n") == 1


def test_help_shows_examples() -> None:
    done = stream("--help")
    assert done.returncode == 0
    assert "edgecap stream rtsp://" in done.stdout


@pytest.fixture(params=["tiny", "default"])
def model(request: pytest.FixtureRequest) -> str:
    if request.param == "tiny":
        return str(request.getfixturevalue("tiny_bundle"))
    if not BUNDLE.exists():
        pytest.skip("the default model has not been built")
    return "default"


def test_a_real_model_on_a_real_clip(shared: Path, model: str) -> None:
    clip = str(shared / "data" / "video_clips" / "street_480x270.mp4")
    arguments = (clip, "--model", model, "--no-realtime", "--threads", "1", "--gate", "thumbnail")
    done = stream(*arguments, "--max-captions", "3", "--beams", "2", code=WITH_MODEL)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) == 3
    for event in events:
        assert event["text"]
        assert event["tokens"]
        assert 0.0 <= event["confidence"] <= 1.0
        assert event["latency_ms"]["encode"] > 0.0
        assert event["latency_ms"]["total"] >= event["latency_ms"]["decode"] > 0.0

    done = stream(*arguments, "--beams", "99", code=WITH_MODEL)
    assert done.returncode == 2
    assert "beams is 99" in done.stderr
    done = stream(clip, "--model", "no-such-model", code=WITH_MODEL)
    assert done.returncode == 2
    assert "no-such-model" in done.stderr
    assert done.stderr.count("\n") == 1
