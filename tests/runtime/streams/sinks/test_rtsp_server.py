"""The stream served over RTSP, seen by FFmpeg as a viewer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams import Frame, open_source
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.rtsp_server import RtspServer, find_python

try:
    find_python()
except SinkError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture
def served(make_event: Callable[..., Event]) -> Iterator[RtspServer]:
    """A sink that is fed a picture of one level, with a caption, by a thread."""
    sink = RtspServer(0, "porch")
    ended = threading.Event()

    def feed() -> None:
        index = 0
        while not ended.wait(0.03):
            image = np.full((120, 160, 3), 200, np.uint8)
            sink.see(Frame(image, index, time.time(), time.monotonic(), None, "x"), index == 0)
            if index == 0:
                sink.write(make_event("a dog", 0))
            index += 1

    thread = threading.Thread(target=feed)
    thread.start()
    until = time.monotonic() + 60
    while sink.port == 0:
        assert time.monotonic() < until
        time.sleep(0.01)
    yield sink
    ended.set()
    thread.join()
    sink.close()


def test_two_viewers_see_frames_and_captions(served: RtspServer) -> None:
    for _ in range(2):  # one after the other: the second gets a stream built anew
        with open_source(f"rtsp://127.0.0.1:{served.port}/porch") as viewer:
            frames: list[Any] = [frame for frame, _ in zip(viewer, range(3), strict=False)]
        assert len(frames) == 3
        image = frames[-1].image
        assert image.shape == (120, 160, 3)
        assert abs(int(image[20, 20, 0]) - 200) < 12
        assert abs(int(image[-3, -3, 0]) - 66) < 25  # the caption's dark band


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SinkError, match=f"port {port} cannot be had"):
            RtspServer(port)
    for bad in ((70000, "x"), (0, ""), (0, "a/b")):
        with pytest.raises(SinkError, match="give"):
            RtspServer(*bad)


def test_it_ends_with_its_process(served: RtspServer) -> None:
    process = served._process
    assert process is not None
    served.close()
    assert process.poll() is not None
