"""Video files, read by OpenCV's FFmpeg."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import SourceError
from edgecap.runtime.streams.options import SourceOptions
from edgecap.runtime.streams.sources.base import Picture, Source

USUAL_RATE = 25.0  # frames per second where a file names none


class VideoFile(Source):
    """A video file, at its own speed (``realtime``) or frame by frame as fast as it is read.

    ``options.rate`` takes the place of the file's own rate. A looped file is opened anew each
    time, so that files which cannot be searched loop too.
    """

    def __init__(self, path: Path, options: SourceOptions) -> None:
        super().__init__(str(path), live=options.realtime)
        self._path = path
        self._loop = options.loop
        self._capture: Any = self._open()
        self._paced = options.rate is not None
        rate = float(self._rate()) if options.rate is None else options.rate
        self._period = 1.0 / (rate if math.isfinite(rate) and 0.1 < rate < 1000 else USUAL_RATE)
        self._pts = -self._period  # of the last frame given
        self._offset = 0.0  # where this round of the loop began
        self._round = 0  # frames given in this round
        self._started: float | None = None  # monotonic moment of pts 0

    def _open(self) -> Any:
        import cv2

        capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise SourceError(
                f"{self._path} is no video that can be read; "
                "give a whole file in a usual format (MP4, MKV, AVI, MOV, WebM)"
            )
        return capture

    def _rate(self) -> float:
        import cv2

        return float(self._capture.get(cv2.CAP_PROP_FPS))

    def _next(self) -> Picture | None:
        taken, image = self._capture.read()
        if not taken:
            if self._round == 0:
                raise SourceError(f"{self._path} holds no frame that can be decoded")
            if not self._loop:
                return None
            self._capture.release()
            self._capture = self._open()
            self._offset, self._round = self._pts + self._period, 0
            return self._next()
        self._round += 1
        self._pts = self._position()
        if self.live:
            self._pace()
        return Picture(image, self._pts)

    def _position(self) -> float:
        """Seconds of the frame just read; counted at the file's rate where its own go back."""
        import cv2

        if self._paced:
            return self._pts + self._period
        position = self._offset + float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0
        if math.isfinite(position) and position > self._pts:
            return position
        return self._pts + self._period

    def _pace(self) -> None:
        now = time.monotonic()
        if self._started is None:
            self._started = now - self._pts
        self._cancelled.wait(max(0.0, self._started + self._pts - now))

    def _release(self) -> None:
        self._capture.release()
