"""MJPEG and snapshots from aiohttp's server, in a process that can be killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.sources import camera
from edgecap.runtime.streams.sources.camera import AbsentError

SERVER = Path(__file__).with_name("http_server.py")
pytest.importorskip("aiohttp")

Serve = Callable[..., tuple["subprocess.Popen[str]", int]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[subprocess.Popen[str]] = []

    def begin(port: int = 0) -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), str(port)], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        return process, int(process.stdout.readline())

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_mjpeg_that_ends_and_comes_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(camera, "LONGEST_DELAY", 0.1)
    process, port = serve()
    address = f"http://bob:hunter22@127.0.0.1:{port}/mjpeg"
    with open_source(address, reconnects=100) as source:
        assert source.live
        assert source.name == f"http://***@127.0.0.1:{port}/mjpeg"
        levels = []
        for _ in range(8):
            frame = source.read()
            assert frame is not None
            assert frame.image.shape == (48, 64, 3)
            levels.append(int(frame.image.mean()))
        assert len(set(levels)) > 3, "the pictures differ, and so must what is read"
        process.kill()
        process.wait()
        serve(port)
        while "is open again" not in caplog.text:
            assert source.read() is not None
    assert "hunter22" not in caplog.text


def test_snapshots_are_asked_for_again(serve: Serve) -> None:
    _, port = serve()
    with open_source(f"http://bob:hunter22@127.0.0.1:{port}/snapshot", rate=50.0) as source:
        frames = [source.read() for _ in range(4)]
    levels = [round(float(frame.image.mean())) for frame in frames if frame]
    assert len(levels) == 4
    assert levels == sorted(set(levels))


def test_a_snapshot_that_is_garbage_counts_as_a_lost_camera(serve: Serve) -> None:
    _, port = serve()
    with (
        open_source(f"http://127.0.0.1:{port}/garbage", reconnects=0) as source,
        pytest.raises(SourceError, match=r"did not come back|given up"),
    ):
        source.read()


def test_why_an_address_cannot_be_used(serve: Serve) -> None:
    process, port = serve()
    here = f"127.0.0.1:{port}"
    cases = {
        f"http://{here}/mjpeg": "look at the user and the password",
        f"http://bob:wrongpw@{here}/snapshot": "look at the user and the password",
        f"http://{here}/nothing": "look at the path",
        f"http://{here}/page": "is a page (text/html)",
        "http:///path": "give http://",
        "http://host:port/path": "give http://",
    }
    for address, part in cases.items():
        with pytest.raises(SourceError) as caught:
            open_source(address, open_timeout=5.0)
        assert not isinstance(caught.value, AbsentError)
        message = str(caught.value)
        assert part in message, address
        assert "wrongpw" not in message
        assert "\n" not in message
    process.kill()
    process.wait()
    with pytest.raises(AbsentError, match="refused"):
        open_source(f"http://{here}/snapshot", open_timeout=5.0)
