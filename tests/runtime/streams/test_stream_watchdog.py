"""The watch-dog against a real datagram socket, as systemd gives one."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecap.runtime.streams.watchdog import WatchDog, notify_systemd

WAIT = 60.0  # seconds; only a failing test waits so long


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(WAIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield server


def test_systemd_hears_of_life_only_while_there_are_beats(
    systemd: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    told: queue.Queue[tuple[str, str]] = queue.Queue()
    dog = WatchDog(0.5, lambda kind, text: told.put((kind, text)))
    dog.start()
    assert systemd.recv(100) == b"READY=1"
    assert systemd.recv(100) == b"WATCHDOG=1"
    dog.work("captioning")
    kind, text = told.get(timeout=WAIT)
    assert (kind, text) == ("stuck", "nothing for 0.5 s: captioning does not end")
    systemd.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            assert systemd.recv(100) == b"WATCHDOG=1"  # those from before
    with contextlib.suppress(BlockingIOError):
        threading.Event().wait(0.5)  # five times what systemd would have had
        pytest.fail(f"heard {systemd.recv(100)!r} of a stream that is stuck")
    systemd.settimeout(WAIT)
    dog.beat()
    assert told.get(timeout=WAIT)[0] == "well"
    assert systemd.recv(100) == b"WATCHDOG=1"
    dog.close()
    while systemd.recv(100) != b"STOPPING=1":
        pass
    assert told.empty()


def test_a_silent_camera_is_told_once() -> None:
    told: queue.Queue[tuple[str, str]] = queue.Queue()
    dog = WatchDog(0.1, lambda kind, text: told.put((kind, text)))
    dog.start()
    assert told.get(timeout=WAIT) == ("stuck", "nothing for 0.1 s: no frame comes")
    with pytest.raises(queue.Empty):
        told.get(timeout=0.5)
    dog.close()


def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify_systemd("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    assert not notify_systemd("READY=1")
