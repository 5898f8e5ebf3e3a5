"""A window on this computer's screen that shows the stream with its captions."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.sinks.base import SinkGone
from edgecap.runtime.streams.sinks.frames import FrameSink


class Window(FrameSink):
    """Shows frames through OpenCV. Closing the window, q or Escape end the sink.

    Raises SinkError where there is no screen, or an OpenCV without windows (the headless package).
    """

    def __init__(self, title: str = "EdgeCap", *, name: str = "window") -> None:
        check_screen()
        self._title = title
        self._shown = False
        super().__init__(name)

    def _show(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        import cv2

        cv2.imshow(self._title, image)
        key = cv2.waitKey(1) & 0xFF
        if self._shown and cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
            raise SinkGone
        self._shown = True
        if key in (ord("q"), 27):
            raise SinkGone

    def _end(self) -> None:
        import cv2

        if self._shown:
            cv2.destroyAllWindows()


def check_screen() -> None:
    """Raise SinkError where a window cannot be opened, with what to do instead."""
    import cv2

    instead = "write a file (video:out.mp4) or serve it (rtsp-server:8554)"
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SinkError(f"there is no screen here (DISPLAY is not set); {instead}")
    gui = [line for line in cv2.getBuildInformation().splitlines() if line.strip()[:4] == "GUI:"]
    if gui and gui[0].split()[-1] == "NONE":
        raise SinkError(
            "this OpenCV has no windows: pip uninstall opencv-python-headless and pip install "
            f"opencv-python, or {instead}"
        )
