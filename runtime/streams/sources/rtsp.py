"""Network cameras over RTSP, read by OpenCV's FFmpeg."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Camera, mask_credentials

PORT = 554


class RtspCamera(Camera):
    """A network camera. OpenCV asks for TCP first and takes UDP where a camera has nothing else.

    The name, and with it every message, has its credentials masked.
    """

    def __init__(self, uri: str, options: SourceOptions) -> None:
        self._uri = uri
        self._options = options
        super().__init__(mask_credentials(uri), options, patience=options.read_timeout)

    def _open(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(
            self._uri,
            cv2.CAP_FFMPEG,
            [
                cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
                round(self._options.open_timeout * 1000),
                cv2.CAP_PROP_READ_TIMEOUT_MSEC,
                round(self._options.read_timeout * 1000),
            ],
        )
        if not capture.isOpened():
            raise SourceError(f"{mask_credentials(self._uri)} cannot be opened: {self._why()}")
        return capture

    def _why(self) -> str:
        """What is wrong, found by knocking at the camera's port."""
        try:
            parts = urlsplit(self._uri)
            host, port = parts.hostname, parts.port or PORT
        except ValueError:
            host = None
        if not host:
            return "give rtsp://[user:password@]host[:port]/path, with special signs %-escaped"
        try:
            socket.create_connection((host, port), timeout=self._options.open_timeout).close()
        except socket.gaierror:
            return "no host of that name is known; look at the address"
        except OSError as error:
            reason = error.strerror or "no answer"
            return f"nothing answers at that host and port ({reason.lower()})"
        return "the host answers but gives no video; look at the path, the user and the password"
