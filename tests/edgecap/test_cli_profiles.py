"""``edgecap profiles``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("yaml", reason="PyYAML reads profiles")
pytest.importorskip("humanfriendly", reason="humanfriendly reads times")


def profiles(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecap", "profiles", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_list_show_and_check(tmp_path: Path, tiny_bundle: Path) -> None:
    done = profiles()
    assert done.returncode == 0, done.stderr
    lines = [line.split()[0] for line in done.stdout.splitlines()]
    assert lines == ["assistive", "driving", "smart-home"]

    done = profiles("show", "driving")
    assert "deadline: 100 ms" in done.stdout
    mine = tmp_path / "mine.yaml"
    mine.write_text(done.stdout + "  # the end\n")

    done = profiles("check", str(mine), "--model", str(tiny_bundle))
    assert done.returncode == 0, done.stderr
    assert "never: " in done.stdout  # the tiny model knows few words
    assert done.stdout.splitlines()[-1].startswith(f"{mine}: a valid profile")


def test_what_the_default_model_can_say() -> None:
    from edgecap.models import bundled

    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    done = profiles("check", "smart-home")
    assert done.returncode == 0, done.stderr
    assert "parcel" in done.stdout.partition("never: ")[2]
    done = profiles("check", "driving")
    for line in done.stdout.splitlines()[:-1]:
        said, _, total = line.split(": ")[1].partition(" words")[0].partition(" of ")
        assert int(said) >= 0.8 * int(total), line


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("stream: {deadline: 80 parsecs}")
    for arguments, part in (
        (["show", "racing"], "assistive, driving, smart-home"),
        (["check", str(bad)], "80 parsecs"),
        (["check", str(tmp_path / "none.yaml")], "no profile"),
    ):
        done = profiles(*arguments)
        assert done.returncode == 2
        assert part in done.stderr
        assert done.stderr.count("\n") == 1
