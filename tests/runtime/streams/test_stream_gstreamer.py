"""gst:// against the GStreamer of this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams import open_source
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources import gstreamer
from edgecap.runtime.streams.sources.camera import AbsentError
from edgecap.runtime.streams.sources.gstreamer import elements_found
from edgecap.runtime.streams.sources.jetson import csi_pipeline


@pytest.fixture(autouse=True)
def _gstreamer() -> None:
    found = elements_found(("videotestsrc", "videoconvert", "appsink"))
    if isinstance(found, str) or len(found) < 3:
        pytest.skip(f"no GStreamer with Python bindings here: {found}")


def children() -> set[str]:
    """Processes that this one has started."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def test_a_finite_pipeline_gives_its_pictures_and_ends() -> None:
    """An odd width, whose rows GStreamer pads; colours in the order blue, green, red."""
    before = children()
    text = "videotestsrc num-buffers=4 pattern=red ! video/x-raw,width=33,height=20,framerate=50/1"
    with open_source(f"gst://{text}") as source:
        frames = list(source)
    assert 1 <= len(frames) <= 4  # the newest wins
    for frame in frames:
        assert frame.image.shape == (20, 33, 3)
        assert np.allclose(frame.image.reshape(-1, 3).mean(axis=0), [0, 0, 255], atol=8)
    assert children() == before


def test_a_live_pipeline_knows_when_it_was_captured() -> None:
    text = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=20/1"
    with open_source(f"gst://{text}") as source:
        frames = [source.read() for _ in range(5)]
        now = time.monotonic()
    moments = [frame.monotonic for frame in frames if frame]
    assert len(moments) == 5
    assert moments == sorted(moments)
    assert all(moment <= now for moment in moments)


def test_an_address_may_be_escaped_and_may_have_its_own_appsink() -> None:
    for address in (
        "gst://videotestsrc%20num-buffers=1%20!%20video/x-raw,width=64,height=48",
        "gst://videotestsrc num-buffers=1 ! video/x-raw,width=64,height=48,format=BGR ! appsink",
    ):
        with open_source(address) as source:
            frames = list(source)
        assert [frame.image.shape for frame in frames] == [(48, 64, 3)]


@pytest.mark.parametrize(
    ("pipeline", "part"),
    [
        ("videotestsource", 'no element "videotestsource"'),
        ("videotestsrc ! nothing ! videoconvert", 'no element "nothing"'),
        ("videotestsrc colour=1", 'no property "colour"'),
        ("videotestsrc ! fakesink", "could not link"),
        ("videotestsrc ! ! videoconvert", "syntax error"),
        ("", "names no pipeline"),
    ],
)
def test_a_broken_pipeline_in_gstreamer_s_words(pipeline: str, part: str) -> None:
    before = children()
    with pytest.raises(SourceError) as caught:
        open_source(f"gst://{pipeline}")
    assert not isinstance(caught.value, AbsentError), "no use to wait for it"
    message = str(caught.value)
    assert part in message
    assert "\n" not in message
    assert len(message) < 400
    assert children() == before


def test_a_device_that_is_absent_may_be_waited_for() -> None:
    with pytest.raises(AbsentError, match="/dev/video987"):
        open_source("gst://v4l2src device=/dev/video987 ! videoconvert")


def test_a_worker_that_is_killed_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecap.runtime.streams.sources.camera.LONGEST_DELAY", 0.05)
    before = children()
    text = "videotestsrc is-live=true ! video/x-raw,width=64,height=48,framerate=30/1"
    said: list[str] = []
    with open_source(f"gst://{text}") as source:
        source.listener = lambda kind, text: said.append(kind)
        assert source.read() is not None
        for process in children() - before:
            os.kill(int(process), 9)
        while "open" not in said:
            assert source.read() is not None
        assert source.shrink(0.5)
        frames = [source.read() for _ in range(3)]
        assert [frame.image.shape for frame in frames if frame] == [(24, 32, 3)] * 3
    assert said == ["lost", "open", "open"]
    assert children() == before


def test_a_silent_pipeline_is_told_in_time() -> None:
    text = "videotestsrc is-live=true ! video/x-raw,framerate=1/100 ! identity drop-probability=1"
    with pytest.raises(AbsentError, match="no picture within 1 s"):
        open_source(f"gst://{text}", open_timeout=1.0)


def test_the_pipeline_of_a_csi_camera_runs_with_a_test_source() -> None:
    """The same text, its two hardware elements exchanged for those that every machine has."""
    options = SourceOptions(width=640, height=360, rate=15.0)
    text = csi_pipeline(0, options)
    assert "nvarguscamerasrc sensor-id=0" in text
    for hardware, software in (
        ("nvarguscamerasrc sensor-id=0", "videotestsrc is-live=true"),
        ("(memory:NVMM)", ""),
        ("nvvidconv", "videoconvert"),
    ):
        text = text.replace(hardware, software)
    with open_source(f"gst://{text}") as source:
        frame = source.read()
    assert frame is not None
    assert frame.image.shape == (360, 640, 3)


def test_a_csi_camera_where_there_is_no_jetson() -> None:
    if "nvarguscamerasrc" in elements_found(("nvarguscamerasrc",)):
        pytest.skip("this machine is a Jetson")
    with pytest.raises(SourceError, match="needs nvarguscamerasrc, which JetPack brings"):
        open_source("csi://0")


def test_a_python_without_bindings_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gstreamer.PYTHON, "/bin/false")
    elements_found.cache_clear()
    try:
        with pytest.raises(SourceError, match="apt install python3-gi"):
            open_source("gst://videotestsrc")
    finally:
        elements_found.cache_clear()


def test_ros_is_asked_for_only_when_it_is_wanted() -> None:
    try:
        import rclpy  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        with pytest.raises(SourceError, match="source /opt/ros"):
            open_source("ros2://camera/image_raw")
    with pytest.raises(SourceError, match="names no topic"):
        open_source("ros2:///")
