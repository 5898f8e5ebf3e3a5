"""The stream with its captions, served as a network camera by GStreamer's RTSP server."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.sinks.frames import FrameSink

LOG = logging.getLogger("edgecap.streams")
SERVING = Path(__file__).with_name("rtsp_serving.py")
PROBE = """
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
"""


class RtspServer(FrameSink):
    """Serves ``rtsp://this-machine:PORT/NAME`` to any number of viewers.

    port : 0 for any free one; ``port`` then says which, once the first frame has come
    path : the name in the address

    The server is a process of a Python that has GStreamer's bindings: this one, or the system's.
    It begins with the first frame, whose size it keeps: later frames are resized. Raises SinkError
    where no Python has the bindings, and for a port in use.
    """

    def __init__(self, port: int = 8554, path: str = "edgecap", *, name: str = "rtsp") -> None:
        if not 0 <= port <= 65535:
            raise SinkError(f"port is {port}; give a whole number from 0 to 65535")
        if not path or not path.replace("-", "").replace("_", "").isalnum():
            raise SinkError(f"{path!r} is no name for a stream; give letters and digits")
        self.port = port
        self._path = path
        self._python = find_python()
        if port:
            check_port(port)
        self._process: subprocess.Popen[bytes] | None = None
        self._size = (0, 0)
        super().__init__(name)

    def _show(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        import cv2

        if self._process is None:
            self._begin(image.shape[1] & ~1, image.shape[0] & ~1)
        if (image.shape[1], image.shape[0]) != self._size:
            image = np.asarray(
                cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8
            )
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(np.ascontiguousarray(image).tobytes())

    def _begin(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._process = subprocess.Popen(
            [self._python, str(SERVING), str(self.port), self._path, str(width), str(height)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdout is not None
        answer = self._process.stdout.readline().decode().strip()
        if not answer.isdigit():
            raise SinkError(f"the RTSP server did not start: {answer or 'it ended at once'}")
        self.port = int(answer)
        LOG.warning("serving rtsp://localhost:%d/%s", self.port, self._path)

    def _end(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # the server ends with its input
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def find_python() -> str:
    """A Python that has GStreamer's bindings and its RTSP server."""
    for python in (sys.executable, shutil.which("python3", path="/usr/bin")):
        if python and not subprocess.run([python, "-c", PROBE], capture_output=True).returncode:
            return python
    raise SinkError(
        "GStreamer's RTSP server is not here; apt install python3-gi gir1.2-gst-rtsp-server-1.0 "
        "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
    )


def check_port(port: int) -> None:
    """Raise SinkError where another program has the port."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise SinkError(
                f"port {port} cannot be had ({error.strerror}); give another, such as "
                f"rtsp-server:{port + 1 if port < 65535 else 8554}"
            ) from None
