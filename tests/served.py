"""A real ``edgecap serve`` in a process of its own, for tests."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECONDS = 90  # for the start on a busy machine


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*arguments: str, token: str | None = None, port: int | None = None) -> Iterator[str]:
    """Its address while it runs: ``with serving("--source", "test://moving") as address``.

    It must end by itself, with exit code 0, when it is asked to.
    """
    port = port or free_port()
    address = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "edgecap", "serve", "--port", str(port), *arguments]
        if token is not None:
            path = Path(folder) / "token"
            path.write_text(token)
            path.chmod(0o600)
            command += ["--token-file", str(path)]
        log = Path(folder) / "log"
        with log.open("wb") as written:
            process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT)
        try:
            _wait(process, address, log)
            yield address
        finally:
            process.terminate()
            try:
                code = process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert code == 0, log.read_text()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}healthz", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer in {SECONDS} s: {log.read_text()}")
