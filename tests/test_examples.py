"""Every example runs as its first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgecap.models import bundled

ROOT = Path(__file__).resolve().parents[1]
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)

data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def photograph(tmp_path: Path) -> str:
    import cv2

    cv2.imwrite(str(tmp_path / "cat.jpg"), data.cat()[..., ::-1])
    return str(tmp_path / "cat.jpg")


def test_caption_photo(photograph: str) -> None:
    out = run("examples/caption_photo.py", photograph)
    assert "confidence" in out
    assert out.count("or:") == 2


def test_choose_engine(photograph: str) -> None:
    assert run("examples/choose_engine.py", photograph, "onnxruntime").count(" ms]") == 1
    assert ": " in run("examples/choose_engine.py", photograph).splitlines()[0]


def test_stream_video(photograph: str) -> None:
    assert "ms]" in run("examples/stream_video.py", str(Path(photograph).parent))


def test_serve_client(photograph: str) -> None:
    out = run("examples/serve_client.py", photograph)
    assert "cat.jpg: " in out
    assert out.count("moving: ") == 3


def test_several_cameras() -> None:
    out = run("examples/several_cameras.py")
    assert "test://moving: " in out
    assert "test://flashing?fps=10: " in out
    assert out.count(" captions, ") == 2


def test_captions_to_json_lines(photograph: str, tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    out = run("examples/captions_to_json_lines.py", photograph, str(path))
    assert "1 captions" in out
    assert path.read_text().count("\n") == 1


def test_serve_rtsp(photograph: str) -> None:
    from edgecap.runtime.errors import SinkError
    from edgecap.runtime.streams.sinks.rtsp_server import find_python

    try:
        find_python()
    except SinkError as error:
        pytest.skip(str(error))
    assert len(run("examples/serve_rtsp.py", photograph, "0").splitlines()) == 1


def test_show_window_without_a_screen(photograph: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    words = [sys.executable, "examples/show_window.py", photograph]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "there is no screen here" in done.stderr
    assert done.stderr.count("\n") == 1


def test_project_latency() -> None:
    pytest.importorskip("onnx")
    out = run("examples/project_latency.py")
    assert "Orin Nano Super: projected " in out
    assert "unchecked" in out


def test_demo() -> None:
    out = run("examples/demo.py")
    assert "cat.jpg: " in out
    assert '"text"' in out


def test_bench_camera() -> None:
    out = run("examples/bench_camera.py", "test://moving", "0.3")
    assert "captions/s" in out
    assert "have the tokens of the reference" in out


def test_own_data() -> None:
    assert "train" in run("examples/own_data.py")


def test_train_tiny() -> None:
    pytest.importorskip("torch")
    assert "CIDEr" in run("examples/train_tiny.py")
