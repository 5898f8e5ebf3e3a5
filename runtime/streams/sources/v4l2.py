"""Cameras of the machine itself, through Video4Linux 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Camera

SELECT_TIMEOUT = 10.0  # seconds that OpenCV waits for a silent device before it calls it lost


class V4L2Camera(Camera):
    """A camera such as ``/dev/video0``, opened again when it is unplugged and comes back."""

    def __init__(self, device: str, options: SourceOptions) -> None:
        self._device = device
        super().__init__(device, options, patience=SELECT_TIMEOUT)

    def _open(self) -> Any:
        if not Path(self._device).is_char_device():
            there = sorted(str(path) for path in Path("/dev").glob("video*"))
            listed = ", ".join(there) if there else "none on this machine"
            raise SourceError(f"{self._device} is no camera; give one of: {listed}")
        import cv2

        capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(
                f"{self._device} cannot be opened as a camera; it may be in use, be a metadata "
                "node, or need rights (add your user to the group video)"
            )
        # One buffer in the driver: what is read next is what the camera sees now.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
