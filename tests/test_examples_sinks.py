"""The examples of sinks and profiles run as their first lines say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgecap.models import bundled

ROOT = Path(__file__).resolve().parents[1]
if "default" not in bundled():
    pytest.skip("this checkout has no default model", allow_module_level=True)

data = pytest.importorskip("skimage.data", reason="scikit-image's photographs are needed")
for name in ("av", "pysubs2", "scenedetect", "yaml", "humanfriendly", "paho.mqtt"):
    pytest.importorskip(name, reason="of the extra stream")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two photographs, each two seconds long, that the camera pans over."""
    import cv2

    path = tmp_path_factory.mktemp("film") / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (320, 240))
    for photograph in (data.cat(), data.coffee()):
        wide = cv2.resize(photograph[..., ::-1], (360, 240))
        for step in range(20):
            writer.write(wide[:, 2 * step : 2 * step + 320].copy())
    writer.release()
    return str(path)


def run(example: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, f"examples/{example}", *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_log_to_sqlite(film: str, tmp_path: Path) -> None:
    out = run("log_to_sqlite.py", film, str(tmp_path / "log.db"))
    assert "captions, " in out.splitlines()[0]
    assert len(out.splitlines()) >= 2


def test_annotate_video(film: str, tmp_path: Path) -> None:
    assert "40 frames" in run("annotate_video.py", film, str(tmp_path / "out.mp4"))
    assert (tmp_path / "out.mp4").stat().st_size > 1000


def test_subtitle_film(film: str, tmp_path: Path) -> None:
    out = run("subtitle_film.py", film, str(tmp_path / "film.vtt"))
    assert len(out.splitlines()) == 2  # one cut, found
    assert (tmp_path / "film.vtt").read_text().startswith("WEBVTT")


def test_speak_captions(film: str, tmp_path: Path) -> None:
    if shutil.which("espeak-ng") is None:
        pytest.skip("no espeak-ng on this machine")
    out = run("speak_captions.py", film, str(tmp_path))
    assert len(list(tmp_path.glob("*.wav"))) == len(out.splitlines()) >= 1


def test_profile_smart_home(film: str) -> None:
    assert " s  " in run("profile_smart_home.py", film)


def test_comes_nearer(shared: Path, yolox: Path) -> None:
    clip = shared / "data" / "video_clips" / "corridor_walking_480x270.mp4"
    out = run("comes_nearer.py", str(clip), str(yolox))
    assert out.count("Careful, someone comes nearer.") == 2


def test_mqtt_home_assistant(film: str, tmp_path: Path) -> None:
    import mqtt_broker

    if mqtt_broker.mosquitto() is None:
        pytest.skip("no mosquitto on this machine")
    broker = mqtt_broker.Broker(tmp_path)
    try:
        listener = mqtt_broker.Listener(broker)
        address = f"mqtt://{broker.user}:{broker.password}@127.0.0.1:{broker.port}"
        assert "captions, " in run("mqtt_home_assistant.py", film, address)
        listener.wait_for(
            lambda: listener.payloads.get("edgecap/front_porch/availability") == b"offline"
        )
        listener.close()
    finally:
        broker.stop()
    assert any("homeassistant/sensor" in topic for topic, _ in listener.messages)
