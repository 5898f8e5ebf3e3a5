"""Captures of OpenCV: FFmpeg for networks and files, Video4Linux for devices."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from edgecap.runtime.streams.sources.base import Picture

FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # OpenCV's own variable, read at each opening
_ENVIRONMENT = threading.Lock()


class OpenCvCapture:
    """A ``cv2.VideoCapture`` behind the contract of ``Capture``.

    clock : what CAP_PROP_POS_MSEC means: "stream" (a timeline of the camera's own), "monotonic"
        (the moment of capture, as V4L2 drivers stamp it) or "none"
    """

    ended = False

    def __init__(self, capture: Any, clock: str = "none") -> None:
        self._capture = capture
        self._clock = clock

    def read(self) -> Picture | None:
        """See ``Capture``."""
        taken, image = self._capture.read()
        if not taken or image is None or not image.size:
            return None
        if self._clock == "none":
            return Picture(image)
        import cv2

        seconds = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        if self._clock == "stream":
            return Picture(image, pts=seconds if seconds > 0.0 else None)
        # Drivers that stamp with another clock are told by stamps that cannot be.
        age = time.monotonic() - seconds
        return Picture(image, captured=seconds if 0.0 <= age < 10.0 else None)

    def release(self) -> None:
        """See ``Capture``."""
        self._capture.release()


def open_ffmpeg(
    address: str, open_timeout: float, read_timeout: float, options: Sequence[str] = ()
) -> Any:
    """A ``cv2.VideoCapture`` of a network address, which may be not opened.

    open_timeout, read_timeout : seconds
    options : FFmpeg's, each as ``name;value``; a user's own environment variable wins over them
    """
    import cv2

    parameters = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(open_timeout * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        round(read_timeout * 1000),
    ]
    if not options or FFMPEG_OPTIONS in os.environ:
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters)
    # OpenCV takes FFmpeg's options from the environment alone: one opening at a time sets it.
    with _ENVIRONMENT:
        os.environ[FFMPEG_OPTIONS] = "|".join(options)
        try:
            return cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters)
        finally:
            os.environ.pop(FFMPEG_OPTIONS, None)
