"""What installs the server as a service or an image: checked by tools made for it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SYSTEMD, DOCKER = ROOT / "integrations" / "systemd", ROOT / "integrations" / "docker"


def the_unit(tmp_path: Path) -> Path:
    """The unit, with a program that is there."""
    unit = tmp_path / "edgecap.service"
    text = (SYSTEMD / "edgecap.service").read_text()
    assert "/opt/edgecap/bin/edgecap" in text
    unit.write_text(text.replace("/opt/edgecap/bin/edgecap", f"{sys.executable} -m edgecap"))
    return unit


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    done = analyze("verify", str(the_unit(tmp_path)))
    assert done.returncode == 0, done.stderr
    assert "edgecap.service" not in done.stderr, done.stderr


def test_the_service_is_shut_off_from_the_rest(tmp_path: Path) -> None:
    # The score of systemd's own audit, 10 is open: it ends with 1 above the threshold.
    done = analyze("security", "--offline=true", "--threshold=25", str(the_unit(tmp_path)))
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze cannot judge a unit that is not installed")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_arguments_of_unit_and_images_are_those_of_the_command() -> None:
    from edgecap.cli.serve import command

    line = (SYSTEMD / "edgecap.env").read_text().partition("EDGECAP_ARGUMENTS=")[2]
    unit = ["--token-file", "/run/token", *shlex.split(line)]
    for arguments in (unit, ["--host", "0.0.0.0", "--source", "/dev/video0"]):
        context = command.make_context("serve", list(arguments))
        assert context.params["sources"] == ("/dev/video0",)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.jetpack6", "Dockerfile.jetpack7"])
def test_hadolint_takes_the_images(name: str) -> None:
    beside = Path(sys.executable).with_name("hadolint")
    tool = str(beside) if beside.exists() else shutil.which("hadolint")
    if tool is None:
        pytest.skip("no hadolint on this machine")
    done = subprocess.run([tool, str(DOCKER / name)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert (DOCKER / f"{name}.dockerignore").exists()
