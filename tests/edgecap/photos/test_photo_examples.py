"""The examples of photo libraries run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from edgecap.models import bundled

ROOT = Path(__file__).resolve().parents[3]
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)
data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in ("cat", "coffee", "rocket"):
        Image.fromarray(getattr(data, name)()).save(tmp_path / "in" / f"{name}.jpg")
    return tmp_path / "in"


def run(example: str, *words: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / example, *words],
        capture_output=True,
        text=True,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_photo_search(folder: Path, tmp_path: Path) -> None:
    out = run("photo_search.py", folder, "cat", cwd=tmp_path)
    assert out.startswith("3 photographs, 3 captioned, 0 unchanged\n")
    assert str(folder.resolve() / "cat.jpg") in out
    assert "3 unchanged" in run("photo_search.py", folder, "zebra", cwd=tmp_path)


def test_alt_text(folder: Path, tmp_path: Path) -> None:
    out = run("alt_text.py", folder, tmp_path / "texts", cwd=tmp_path)
    assert out.splitlines() == [
        "xmp: 3 written, 0 kept as they were",
        "html: 3 written, 0 kept as they were",
    ]
    names = sorted(path.name for path in (tmp_path / "texts").iterdir())
    assert names == ["cat.jpg.xmp", "coffee.jpg.xmp", "index.html", "rocket.jpg.xmp"]
