"""Cameras of the machine itself, through Video4Linux 2."""

from __future__ import annotations

import os
from pathlib import Path

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.camera import AbsentError, Camera, Capture
from edgecap.runtime.streams.sources.opencv import OpenCvCapture

SELECT_TIMEOUT = 10.0  # seconds that OpenCV waits for a silent device before it calls it lost


class V4L2Camera(Camera):
    """A camera such as ``/dev/video0``, opened again when it is unplugged and comes back.

    ``width``, ``height`` and ``rate`` of the options are asked for; the driver takes what is near.
    """

    def __init__(self, device: str, options: SourceOptions) -> None:
        self._device, self._options = device, options
        super().__init__(device, options, patience=SELECT_TIMEOUT)

    def _open(self) -> Capture:
        path = Path(self._device)
        if not path.exists():
            raise AbsentError(f"{self._device} is not there; give one of: {_there()}")
        if not path.is_char_device():
            raise SourceError(f"{self._device} is no camera; give one of: {_there()}")
        if not os.access(path, os.R_OK | os.W_OK):
            raise SourceError(_no_rights(path))
        import cv2

        capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(
                f"{self._device} cannot be opened as a camera; it may be in use by another "
                "program (fuser shows it) or be a metadata node: try the other /dev/video*"
            )
        if self._options.width is not None and self._options.height is not None:
            width, height = self.scaled(self._options.width, self._options.height)
        elif self.scale != 1.0:
            width, height = self.scaled(self.size[1], self.size[0])
        else:
            width = height = 0
        if width:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        if self._options.rate is not None:
            capture.set(cv2.CAP_PROP_FPS, self._options.rate)
        # One buffer in the driver: what is read next is what the camera sees now.
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return OpenCvCapture(capture, "monotonic")

    def shrink(self, factor: float) -> bool:
        """See ``Source``."""
        return self.renew(factor)


def _there() -> str:
    there = sorted(str(path) for path in Path("/dev").glob("video*"))
    return ", ".join(there) if there else "none on this machine"


def _no_rights(path: Path) -> str:
    import grp

    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (KeyError, OSError):
        return f"no permission to open {path}; ask the owner of the device for read and write"
    return (
        f"no permission to open {path}; it belongs to the group {group}: "
        f"sudo usermod -aG {group} $USER, then log in again"
    )
