"""What the tests of photo libraries share."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_disk import mounted

import edgecap
from edgecap.cli import main


@pytest.fixture(scope="session")
def captioner(tiny_bundle: Path) -> Any:
    return edgecap.load(tiny_bundle, threads=1, engine="onnxruntime")


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    """A folder of ``count`` different small pictures in folders of ten: ``00/p000.png``..."""

    def make(count: int = 12, name: str = "album") -> Path:
        folder = tmp_path / name
        generator = np.random.default_rng(count)
        for number in range(count):
            path = folder / f"{number // 10:02}" / f"p{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8)).save(path)
        return folder

    return make


@pytest.fixture
def edgecap_command(
    capfd: pytest.CaptureFixture[str], tiny_bundle: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process -> exit code, standard output, standard error."""

    def command(*arguments: str | Path) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        if words[0] in ("caption", "index"):
            words += ["--model", str(tiny_bundle), "--engine", "onnxruntime", "--threads", "1"]
        with pytest.raises(SystemExit) as caught:
            main.run(words)
        out, err = capfd.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), out, err

    return command


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with mounted(tmp_path / "small", "2m") as folder:
        yield folder


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of a user who is not root, which this process is meanwhile."""
    folder = Path(tempfile.mkdtemp())
    was_root = os.geteuid() == 0
    if was_root:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def exiftool() -> Callable[[Path], dict[str, Any]]:
    """What ExifTool, a program of another project, reads in a file: group:tag -> value."""
    program = shutil.which("exiftool")
    if program is None:
        pytest.skip("no exiftool here (Debian: libimage-exiftool-perl)")

    def read(path: Path) -> dict[str, Any]:
        import json

        done = subprocess.run(
            [program, "-j", "-G1", "-struct", "-charset", "UTF8", str(path)],
            capture_output=True,
            check=True,
        )
        return dict(json.loads(done.stdout)[0])

    return read
