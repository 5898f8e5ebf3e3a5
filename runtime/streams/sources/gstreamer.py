"""``gst://PIPELINE``: pictures of any GStreamer pipeline, and the capture that others share.

OpenCV's wheels come without GStreamer, and its Python bindings belong to the system's Python. The
pipeline therefore runs in a process of its own (``gst_worker.py``) under a Python that has them.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources import gst_worker
from edgecap.runtime.streams.sources.base import Picture, mask_credentials
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, Capture
from edgecap.runtime.streams.sources.gst_worker import ENDED, FAILED, FOUND, FRAME, HEADER, LOST

PYTHON = (
    "EDGECAP_GST_PYTHON"  # a Python that has PyGObject, where neither ours nor the system's has
)
INSTALL = "python3-gi gir1.2-gstreamer-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good"
LARGEST = 1 << 30  # bytes of one picture
NOTHING = (b"", 0, 0, 0, 0, -1, -1)
WORDS = 200  # of GStreamer's own are repeated


class GstCapture:
    """One running pipeline.

    text : in the words of ``gst-launch-1.0``; ``videoconvert ! appsink`` is added unless it has an
        ``appsink``. It is handed over on standard input: a process list shows no password
    first, between : seconds to the first picture, and to each that follows

    Raises SourceError with GStreamer's own words, and where there is no GStreamer.
    """

    def __init__(self, text: str, name: str, first: float, between: float) -> None:
        self.ended = False
        self._name, self._between = name, between
        self._process = _start({"pipeline": text})
        try:
            self._first: Picture | None = self._take(first)
        except BaseException:
            self.release()
            raise
        if self._first is None:
            self.release()
            raise AbsentError(f"{name} gives no picture within {first:g} s; look at the camera")

    def read(self) -> Picture | None:
        """See ``Capture``."""
        if self._first is not None:
            picture, self._first = self._first, None
            return picture
        try:
            return self._take(self._between)
        except SourceError:
            return None

    def release(self) -> None:
        """End the process and wait for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _take(self, timeout: float) -> Picture | None:
        deadline = time.monotonic() + timeout
        assert self._process.stdout is not None
        head = _receive(self._process.stdout, HEADER.size, deadline)
        if head is None:
            return None
        kind, width, height, row, size, captured, position = HEADER.unpack(head.tobytes())
        if size > LARGEST or (kind == FRAME and (size < row * height or row < 3 * width)):
            return None
        body = _receive(self._process.stdout, size, deadline)
        if kind in (FAILED, LOST) and body is not None:
            words = _shorten(body.tobytes().decode(errors="replace"))
            failure = SourceError if kind == FAILED else AbsentError
            raise failure(f"{self._name}: GStreamer says: {words}")
        self.ended = kind == ENDED
        if kind != FRAME or body is None or not size:
            return None
        rows = body[: row * height].reshape(height, row)
        image = np.ascontiguousarray(rows[:, : 3 * width]).reshape(height, width, 3)
        return Picture(
            image,
            pts=None if position < 0 else position / 1e9,
            captured=None if captured < 0 else captured / 1e9,
        )


class GstSource(Camera):
    """``gst://videotestsrc ! video/x-raw,width=640 ! videoconvert`` and the like.

    A pipeline that ends by itself (``filesrc``, ``num-buffers``) ends the stream; one that fails is
    started again as a lost camera is.
    """

    def __init__(self, text: str, options: SourceOptions) -> None:
        if " " not in text and "%20" in text:
            text = unquote(text)
        if not text.strip():
            raise SourceError(
                "gst:// names no pipeline; give gst://ELEMENT ! ELEMENT ..., as gst-launch-1.0 does"
            )
        self._text, self._options = text, options
        name = f"gst://{mask_credentials(text)}"
        super().__init__(name, options, patience=options.read_timeout)

    def _open(self) -> Capture:
        need_gstreamer(self.name)
        options, text = self._options, self._text
        if self.scale != 1.0:
            height, width = self.size
            width, height = self.scaled(width, height)
            text += f" ! videoconvert ! videoscale ! video/x-raw,width={width},height={height}"
        return GstCapture(text, self.name, options.open_timeout, options.read_timeout)

    def shrink(self, factor: float) -> bool:
        """See ``Source``. A pipeline with an ``appsink`` of its own cannot."""
        return "appsink" not in self._text and self.renew(factor)


@functools.cache
def elements_found(names: tuple[str, ...]) -> frozenset[str] | str:
    """Which of the elements this machine's GStreamer has, or why there is no GStreamer."""
    try:
        process = _start({"elements": names})
    except OSError as error:
        return str(error)
    assert process.stdout is not None
    with process:
        deadline = time.monotonic() + 30.0
        head = _receive(process.stdout, HEADER.size, deadline)
        kind, *_, size, _, _ = HEADER.unpack(head.tobytes()) if head is not None else NOTHING
        body = _receive(process.stdout, size, deadline)
        process.kill()
    text = "" if body is None else body.tobytes().decode(errors="replace")
    if kind != FOUND:
        return text or "they do not start"
    return frozenset(json.loads(text))


def need_gstreamer(name: str) -> None:
    """Raise SourceError where there is no GStreamer with Python bindings."""
    found = elements_found(("appsink", "videoconvert"))
    if isinstance(found, str):
        raise SourceError(
            f"{name} needs GStreamer with its Python bindings ({_shorten(found)}); "
            f"install them: apt install {INSTALL}"
        )


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [_python(), "-I", str(Path(gst_worker.__file__).resolve())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if "GST_DEBUG" in os.environ else subprocess.DEVNULL,
        bufsize=0,
        start_new_session=True,  # Ctrl-C is for the stream, which then ends this in good order
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode() + b"\n")
    return process


def _python() -> str:
    chosen = os.environ.get(PYTHON)
    if chosen:
        return chosen
    return sys.executable if importlib.util.find_spec("gi") else "/usr/bin/python3"


def _receive(stream: IO[bytes], size: int, deadline: float) -> npt.NDArray[np.uint8] | None:
    """Exactly ``size`` bytes, or None when the stream ends or the deadline passes first."""
    body = np.empty(size, np.uint8)
    rest = memoryview(body.data)
    while rest:
        left = deadline - time.monotonic()
        if left <= 0.0 or not select.select([stream], [], [], left)[0]:
            return None
        taken = stream.readinto(rest)  # type: ignore[attr-defined]
        if not taken:
            return None
        rest = rest[taken:]
    return body


def _shorten(words: str) -> str:
    line = mask_credentials(" ".join(words.split()))
    return line if len(line) <= WORDS else line[: WORDS - 3] + "..."
