"""Sources and captioners whose order of events is set by the tests, never by the clock."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecap.runtime.caption import Caption, Timings
from edgecap.runtime.streams.detector import Detector
from edgecap.runtime.streams.sources.base import Picture, Source

SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(Gst.ElementFactory.find(name) for name in ("videotestsrc", "x264enc", "rtph264pay"))
"""


@pytest.fixture(scope="session")
def detector(yolox: Path) -> Detector:
    """The YOLOX model, opened."""
    return Detector(yolox)


class Script(Source):
    """Gives the pictures of an iterator, whose code says when each one comes."""

    def __init__(self, pictures: Iterable[Picture], *, live: bool, stills: bool = False) -> None:
        super().__init__("script", live=live, stills=stills)
        self._pictures: Iterator[Picture] = iter(pictures)
        self.released = 0

    def _next(self) -> Picture | None:
        return next(self._pictures, None)

    def _release(self) -> None:
        self.released += 1


def describe(image: np.ndarray, *, channels: str, beams: int = 4) -> Caption:
    """A captioner that tells the picture's mean level, to be checked by."""
    assert image.dtype == np.uint8
    assert image.ndim == 3
    text = f"level {image.mean():.0f} {channels} beams {beams}"
    timings = Timings(load=1.0, preprocess=2.0, encode=3.0, decode=4.0, total=10.0)
    return Caption(text, (5, 6, 2), -0.5, 0.75, True, timings)


def flat(level: int, pts: float | None = None) -> Picture:
    """A small picture of one level."""
    return Picture(np.full((32, 32, 3), level, np.uint8), pts)


@pytest.fixture
def script() -> type[Script]:
    return Script


@pytest.fixture
def captioner() -> Callable[..., Caption]:
    return describe


@pytest.fixture
def picture() -> Callable[..., Picture]:
    return flat


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes a video whose frame i has the level 8 * i."""

    def make(name: str = "count.avi", frames: int = 20, fps: float = 25.0) -> Path:
        path = tmp_path / name
        code = "mp4v" if name.endswith(".mp4") else "MJPG"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), fps, (64, 48))
        assert writer.isOpened()
        for index in range(frames):
            writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
        writer.release()
        return path

    return make


@pytest.fixture
def picture_folder(tmp_path: Path) -> Path:
    """Three pictures written out of their names' order, and files that are none."""
    folder = tmp_path / "pictures of mine"
    folder.mkdir()
    for name, level in (("c.png", 200), ("a.jpg", 20), ("b.PNG", 100)):
        encoded = cv2.imencode(Path(name).suffix.lower(), flat(level).image)[1]
        (folder / name).write_bytes(encoded.tobytes())
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    """Whatever a test does, its threads end with it."""
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture(scope="module")
def server_python() -> str:
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", PROBE], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no GStreamer RTSP server for the system's Python on this machine")
    return SYSTEM_PYTHON


@pytest.fixture
def start(server_python: str) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts servers and ends them after the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        command = [server_python, str(SERVER), *arguments]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield begin
    for process in running:
        process.kill()
        process.communicate()
