"""RTSP against GStreamer's server: a camera that works, hides, hangs up and comes back."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams import Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.sources import base

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

Start = Callable[..., tuple["subprocess.Popen[str]", int]]


@pytest.fixture(scope="module")
def server_python() -> str:
    try:
        subprocess.run([SYSTEM_PYTHON, "-c", PROBE], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no GStreamer RTSP server for the system's Python on this machine")
    return SYSTEM_PYTHON


@pytest.fixture
def start(server_python: str) -> Iterator[Start]:
    """Starts servers and ends them after the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> tuple[subprocess.Popen[str], int]:
        command = [server_python, str(SERVER), *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_captions_of_a_network_camera(start: Start, captioner: Callable[..., Caption]) -> None:
    _, port = start("--user", "bob", "--password", "hunter22")
    address = f"rtsp://bob:hunter22@127.0.0.1:{port}/camera"
    with open_source(address) as source:
        assert source.live
        assert source.name == f"rtsp://***@127.0.0.1:{port}/camera"
        pipeline = Pipeline(source, captioner, options=StreamOptions(gate="none", max_captions=10))
        events = list(pipeline)
    assert len(events) == 10
    assert {event.source for event in events} == {source.name}
    assert [event.frame for event in events] == sorted({event.frame for event in events})
    report = pipeline.report
    assert report is not None
    dropped = report.dropped
    assert report.received == 10 + dropped["stale"] + dropped["stopped"]


def test_a_lost_camera_comes_back_and_is_given_up_in_the_end(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(base, "LONGEST_DELAY", 0.05)
    caplog.set_level(logging.WARNING)
    process, port = start()
    with open_source(f"rtsp://127.0.0.1:{port}/camera", reconnects=3) as source:
        first = source.read()
        assert first is not None
        assert first.image.shape == (240, 320, 3)
        process.kill()
        process.wait()
        process, _ = start("--port", str(port))
        indices = [first.index]
        while "is open again" not in caplog.text:
            frame = source.read()
            assert frame is not None
            indices.append(frame.index)
        assert indices == list(range(len(indices)))
        process.kill()
        process.wait()
        with pytest.raises(SourceError, match="3 attempts"):
            for _ in source:
                pass


def test_a_camera_that_falls_silent_is_lost(start: Start) -> None:
    process, port = start()
    address = f"rtsp://127.0.0.1:{port}/camera"
    with open_source(address, read_timeout=1.0, reconnects=0) as source:
        assert source.read() is not None
        process.send_signal(signal.SIGSTOP)  # the connection stands, nothing comes
        with pytest.raises(SourceError, match="was lost"):
            for _ in source:
                pass
    process.send_signal(signal.SIGCONT)


def test_why_a_camera_cannot_be_opened(start: Start) -> None:
    process, port = start("--user", "bob", "--password", "hunter22")
    here = f"127.0.0.1:{port}"
    cases = {
        f"rtsp://bob:wrongpw@{here}/camera": "the user and the password",
        f"rtsp://bob:hunter22@{here}/nothing": "look at the path",
        "rtsp://bob:hunter22@no-such-host.invalid/camera": "no host of that name",
        "rtsp://bob:hunter22@/camera": "give rtsp://",
        "rtsp://bob:hunter22@127.0.0.1:99999/camera": "give rtsp://",
    }
    for address, part in cases.items():
        with pytest.raises(SourceError) as caught:
            open_source(address, open_timeout=5.0)
        message = str(caught.value)
        assert part in message
        assert "\n" not in message
        for secret in ("bob", "hunter22", "wrongpw"):
            assert secret not in message
    process.kill()
    process.wait()
    with pytest.raises(SourceError, match="nothing answers"):
        open_source(f"rtsp://{here}/camera", open_timeout=5.0)


def test_the_reader_prints_no_credentials(start: Start) -> None:
    """What OpenCV and FFmpeg write by themselves is looked at too, in a fresh process."""
    _, port = start("--user", "bob", "--password", "hunter22")
    script = (
        "import sys, logging; logging.basicConfig(level=logging.DEBUG)\n"
        "from edgecap.runtime.streams import open_source\n"
        "for address in sys.stdin.read().split():\n"
        "    try:\n"
        "        with open_source(address, open_timeout=5.0) as source:\n"
        "            print(source.read().source)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    addresses = [
        f"rtsp://bob:hunter22@127.0.0.1:{port}/camera",
        f"rtsp://bob:hunter23@127.0.0.1:{port}/camera",
        "rtsp://bob:hunter22@127.0.0.1:9/camera",
    ]
    run = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(addresses),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("***@127.0.0.1") == 3
    for secret in ("bob", "hunter22", "hunter23"):
        assert secret not in run.stdout + run.stderr
