"""A video file of the stream with its captions drawn in."""

from __future__ import annotations

import os
from fractions import Fraction
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.sinks.frames import FrameSink

FORMATS = (".mp4", ".mkv", ".mov")
CODECS = ("libx264", "libopenh264", "mpeg4")  # the first that this FFmpeg has
TICKS = 90_000  # of the time base in a second


class AnnotatedVideo(FrameSink):
    """Encodes frames with PyAV at the times at which they were taken.

    path : ends in .mp4, .mkv or .mov; written to a neighbour first, then renamed. A
        Matroska file can be played although its recording broke off; it keeps the neighbour's name
    patient : wait for the encoder rather than leave frames out; for sources that are not live

    Raises SinkError for another ending or a folder that cannot be written.
    """

    def __init__(
        self, path: str | PathLike[str], *, patient: bool = False, name: str = "video"
    ) -> None:
        import av

        self._path = Path(path)
        if self._path.suffix.lower() not in FORMATS:
            raise SinkError(f"{self._path} is no video file; give a name in {', '.join(FORMATS)}")
        if not os.access(self._path.parent, os.W_OK | os.X_OK) or self._path.is_dir():
            raise SinkError(f"{self._path} cannot be written; give a file in a folder that exists")
        self._codec = next(codec for codec in CODECS if codec in av.codecs_available)
        self._draft = self._path.with_name(f".{self._path.stem}.part{self._path.suffix}")
        self._container: Any = None
        self._stream: Any = None
        self._ticks = -1
        super().__init__(name, patient=patient)

    def _show(self, image: npt.NDArray[np.uint8], seconds: float) -> None:
        import av
        import cv2

        if self._container is None:
            self._open(image.shape[1], image.shape[0])
        size = (self._stream.width, self._stream.height)
        if (image.shape[1], image.shape[0]) != size:  # odd sides, or a camera that changed
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        # Times of a camera may stand still or go back: an encoder takes growing ones only.
        self._ticks = max(self._ticks + 1, round(seconds * TICKS))
        frame.pts, frame.time_base = self._ticks, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def _open(self, width: int, height: int) -> None:
        import av

        self._container = av.open(str(self._draft), "w")
        fast = {"preset": "veryfast", "crf": "23"} if self._codec == "libx264" else {}
        self._stream = self._container.add_stream(self._codec, rate=30, options=fast)
        self._stream.width, self._stream.height = width - width % 2, height - height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)

    def _end(self) -> None:
        if self._container is None:
            return
        try:
            try:
                self._container.mux(self._stream.encode(None))
            finally:
                self._container.close()
        except BaseException:
            if self._path.suffix.lower() != ".mkv":  # nothing could play what is left of another
                self._draft.unlink(missing_ok=True)
            raise
        os.replace(self._draft, self._path)
