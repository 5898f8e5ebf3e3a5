"""RTSP against GStreamer's server: a camera that works, hides, hangs up and comes back."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams import Pipeline, StreamOptions, open_source
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources import camera
from edgecap.runtime.streams.sources.gstreamer import elements_found
from edgecap.runtime.streams.sources.jetson import rtsp_pipeline
from edgecap.runtime.streams.sources.rtsp import split_transport

Start = Callable[..., tuple["subprocess.Popen[str]", int]]


def test_captions_of_a_network_camera(start: Start, captioner: Callable[..., Caption]) -> None:
    _, port = start("--user", "bob", "--password", "hunter22")
    address = f"rtsp://bob:hunter22@127.0.0.1:{port}/camera"
    with open_source(address) as source:
        assert source.live
        assert source.name == f"rtsp://***@127.0.0.1:{port}/camera"
        pipeline = Pipeline(source, captioner, options=StreamOptions(gate="none", max_captions=10))
        events = list(pipeline)
    assert len(events) == 10
    assert {event.source for event in events} == {source.name}
    assert [event.frame for event in events] == sorted({event.frame for event in events})
    report = pipeline.report
    assert report is not None
    dropped = report.dropped
    assert report.received == 10 + dropped["stale"] + dropped["stopped"]


def test_a_lost_camera_comes_back_and_is_given_up_in_the_end(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(camera, "LONGEST_DELAY", 0.05)
    caplog.set_level(logging.WARNING)
    process, port = start()
    with open_source(f"rtsp://127.0.0.1:{port}/camera", reconnects=3) as source:
        first = source.read()
        assert first is not None
        assert first.image.shape == (240, 320, 3)
        process.kill()
        process.wait()
        process, _ = start("--port", str(port))
        indices = [first.index]
        while "is open again" not in caplog.text:
            frame = source.read()
            assert frame is not None
            indices.append(frame.index)
        assert indices == list(range(len(indices)))
        process.kill()
        process.wait()
        with pytest.raises(SourceError, match="3 attempts"):
            for _ in source:
                pass


def test_a_camera_that_falls_silent_is_lost(start: Start) -> None:
    process, port = start()
    address = f"rtsp://127.0.0.1:{port}/camera"
    with open_source(address, read_timeout=1.0, reconnects=0) as source:
        assert source.read() is not None
        process.send_signal(signal.SIGSTOP)  # the connection stands, nothing comes
        with pytest.raises(SourceError, match="was lost"):
            for _ in source:
                pass
    process.send_signal(signal.SIGCONT)


def test_why_a_camera_cannot_be_opened(start: Start) -> None:
    process, port = start("--user", "bob", "--password", "hunter22")
    here = f"127.0.0.1:{port}"
    cases = {
        f"rtsp://bob:wrongpw@{here}/camera": "the user and the password",
        f"rtsp://bob:hunter22@{here}/nothing": "look at the path",
        "rtsp://bob:hunter22@no-such-host.invalid/camera": "no host of that name",
        "rtsp://bob:hunter22@/camera": "give rtsp://",
        "rtsp://bob:hunter22@127.0.0.1:99999/camera": "give rtsp://",
    }
    for address, part in cases.items():
        with pytest.raises(SourceError) as caught:
            open_source(address, open_timeout=5.0)
        message = str(caught.value)
        assert part in message
        assert "\n" not in message
        for secret in ("bob", "hunter22", "wrongpw"):
            assert secret not in message
    process.kill()
    process.wait()
    with pytest.raises(SourceError, match="nothing answers"):
        open_source(f"rtsp://{here}/camera", open_timeout=5.0)


def test_the_reader_prints_no_credentials(start: Start) -> None:
    """What OpenCV and FFmpeg write by themselves is looked at too, in a fresh process."""
    _, port = start("--user", "bob", "--password", "hunter22")
    script = (
        "import sys, logging; logging.basicConfig(level=logging.DEBUG)\n"
        "from edgecap.runtime.streams import open_source\n"
        "for address in sys.stdin.read().split():\n"
        "    try:\n"
        "        with open_source(address, open_timeout=5.0) as source:\n"
        "            print(source.read().source)\n"
        "    except ValueError as error:\n"
        "        print(error)\n"
    )
    addresses = [
        f"rtsp://bob:hunter22@127.0.0.1:{port}/camera",
        f"rtsp://bob:hunter23@127.0.0.1:{port}/camera",
        "rtsp://bob:hunter22@127.0.0.1:9/camera",
    ]
    run = subprocess.run(
        [sys.executable, "-c", script],
        input="\n".join(addresses),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[3],
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("***@127.0.0.1") == 3
    for secret in ("bob", "hunter22", "hunter23"):
        assert secret not in run.stdout + run.stderr


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_both_transports(start: Start, transport: str) -> None:
    _, port = start()
    with open_source(f"rtsp://127.0.0.1:{port}/camera?transport={transport}") as source:
        assert source.name == f"rtsp://127.0.0.1:{port}/camera"
        frames = [source.read() for _ in range(5)]
    assert all(frame is not None and frame.image.shape == (240, 320, 3) for frame in frames)


def test_a_camera_s_own_parameters_stay() -> None:
    uri = "rtsp://u:p@h/s?channel=1&transport=multicast"
    assert split_transport(uri) == (uri, None)
    assert split_transport("rtsp://u:p@h/s?channel=1&transport=udp") == (
        "rtsp://u:p@h/s?channel=1",
        "udp",
    )


def test_an_absent_camera_is_waited_for(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(camera, "LONGEST_DELAY", 0.2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with open_source(f"rtsp://127.0.0.1:{port}/camera", wait=True, reconnects=100) as source:
        assert "nothing answers" in caplog.text
        start("--port", str(port))
        assert source.read() is not None


def test_a_picture_that_changes_its_size_goes_on(start: Start) -> None:
    process, port = start()
    with open_source(f"rtsp://127.0.0.1:{port}/camera") as source:
        assert source.read() is not None
        assert process.stdin is not None
        process.stdin.write("size 640 480\n")
        process.stdin.flush()
        frames = [source.read() for _ in range(30)]
    assert all(frame is not None and frame.image.shape[2] == 3 for frame in frames)
    assert [frame.index for frame in frames if frame] == list(range(1, 31))


def test_a_camera_that_sends_damaged_video_is_survived(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(camera, "LONGEST_DELAY", 0.05)
    _, port = start("--damage", "0.002")
    with open_source(f"rtsp://127.0.0.1:{port}/camera", wait=True, reconnects=1000) as source:
        frames = [source.read() for _ in range(20)]
    assert all(frame is not None and frame.image.shape == (240, 320, 3) for frame in frames)


def test_something_that_speaks_no_rtsp_is_refused_in_time() -> None:
    """A server of line noise at the camera's port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(bytes(range(256)) * 64)

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        port = server.getsockname()[1]
        with pytest.raises(SourceError, match="gives no video"):
            open_source(f"rtsp://127.0.0.1:{port}/camera", open_timeout=3.0)
        server.shutdown(socket.SHUT_RDWR)
    thread.join(30.0)


def test_a_frozen_camera_is_noticed(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """Black pictures from a coder: the same bytes, whose timestamps go on."""
    _, port = start("--pattern", "black")
    said: list[str] = []
    with open_source(f"rtsp://127.0.0.1:{port}/camera", frozen_after=1.0) as source:
        source.listener = lambda kind, text: said.append(kind)
        frames = [source.read() for _ in range(60)]
    assert all(frames)
    assert said == ["frozen", "lost", "open"]


def test_frames_that_lie_in_the_network_s_buffers_are_dropped(start: Start) -> None:
    """A reader that pauses finds the past when it comes back; none of it is given."""
    _, port = start()
    with open_source(f"rtsp://127.0.0.1:{port}/camera", latency=0.5) as source:
        for _ in range(10):
            assert source.read() is not None
        threading.Event().wait(3.0)
        assert source.read() is not None
        assert source.lost["late"] > 10


def test_the_pipeline_of_a_jetson_runs_with_a_software_decoder(start: Start) -> None:
    """The same text, its two hardware elements exchanged for those that every machine has."""
    _, port = start("--user", "bob", "--password", "hunter22")
    text = rtsp_pipeline(f"rtsp://bob:hunter22@127.0.0.1:{port}/camera", SourceOptions())
    assert "nvv4l2decoder" in text
    if "avdec_h264" not in elements_found(("avdec_h264",)):
        pytest.skip("GStreamer has no avdec_h264 here: install gstreamer1.0-libav")
    text = text.replace("nvv4l2decoder", "avdec_h264").replace("nvvidconv", "videoconvert")
    with open_source(f"gst://{text}") as source:
        assert "hunter22" not in source.name
        frames = [source.read() for _ in range(5)]
    assert all(frame is not None and frame.image.shape == (240, 320, 3) for frame in frames)


def test_hardware_that_is_not_there_is_said_aloud(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    if "nvv4l2decoder" in elements_found(("nvv4l2decoder",)):
        pytest.skip("this machine has the hardware")
    _, port = start()
    with open_source(f"rtsp://127.0.0.1:{port}/camera", decoder="hardware") as source:
        assert source.read() is not None
    assert "decoded in software" in caplog.text
    assert "nvv4l2decoder" in caplog.text
