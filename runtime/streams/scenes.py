"""The scenes of a film and a caption for each."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.caption import Caption
from edgecap.runtime.errors import OptionsError, SourceError

LOOKS = 3  # frames of a scene that are captioned; the most confident caption is kept
SHORTEST = 1.0  # seconds of a scene


@dataclass(frozen=True)
class Scene:
    """A part of a film, in seconds on its own timeline."""

    start: float
    end: float

    def looks(self, count: int = LOOKS) -> list[float]:
        """Moments inside the scene, spread evenly and away from its cuts."""
        return [
            self.start + (self.end - self.start) * (look + 1) / (count + 1) for look in range(count)
        ]


def find_scenes(
    path: str | PathLike[str], *, longest: float = 10.0, shortest: float = SHORTEST
) -> list[Scene]:
    """Scenes between the cuts of a video, in their order and without gaps.

    Cuts are found by PySceneDetect's adaptive detector. A scene of more than ``longest`` seconds
    is divided into equal parts. Raises SourceError for a file that is no video, OptionsError.
    """
    if not shortest <= longest < math.inf:
        raise OptionsError(
            f"the longest scene is {longest:g} s; give a number of seconds from {shortest:g}"
        )
    source = Path(path)
    if not source.is_file():
        raise SourceError(f"{source} is not a file; give a video")
    from scenedetect import AdaptiveDetector, SceneManager, open_video

    logging.getLogger("pyscenedetect").setLevel(logging.CRITICAL)  # errors are raised as well
    try:
        video = open_video(str(source))
        if min(video.frame_size) < 1:  # a name that FFmpeg takes for a format, and nothing in it
            raise ValueError("no frames")
    except Exception as error:  # the package raises OSError, VideoOpenFailure and more
        raise SourceError(
            f"{source} is no video that can be read; give a whole file in a usual format "
            "(MP4, MKV, AVI, MOV, WebM)"
        ) from error
    manager = SceneManager()
    manager.add_detector(AdaptiveDetector(min_scene_len=max(1, round(shortest * video.frame_rate))))
    manager.detect_scenes(video)
    if video.frame_number < 2:
        raise SourceError(f"{source} is one picture, no film; `edgecap caption` describes pictures")
    scenes = []
    for begin, end in manager.get_scene_list(start_in_scene=True):
        scenes += _divide(Scene(begin.seconds, end.seconds), longest)
    return scenes


def _divide(scene: Scene, longest: float) -> list[Scene]:
    length = scene.end - scene.start
    parts = max(1, math.ceil(length / longest))
    edges = [scene.start + length * part / parts for part in range(parts + 1)]
    return [Scene(edges[part], edges[part + 1]) for part in range(parts)]


def describe_scenes(
    path: str | PathLike[str],
    captioner: Any,
    scenes: Sequence[Scene],
    *,
    looks: int = LOOKS,
    **decoding: Any,
) -> Iterator[tuple[Scene, Caption]]:
    """Each scene with the caption the model is most confident of among ``looks`` of its frames.

    captioner : called with (image uint8 [H, W, 3], channels="BGR", **decoding), gives a ``Caption``

    A scene none of whose frames can be decoded is left out.
    """
    frames = _frames_at(Path(path), [moment for scene in scenes for moment in scene.looks(looks)])
    for scene in scenes:
        best: Caption | None = None
        for _ in range(looks):
            image = next(frames, None)
            if image is None:
                break
            caption = captioner(image, channels="BGR", **decoding)
            if best is None or caption.confidence > best.confidence:
                best = caption
        if best is not None:
            yield scene, best


def _frames_at(path: Path, moments: Sequence[float]) -> Iterator[npt.NDArray[np.uint8]]:
    """The frame shown at each moment; the moments grow. Read in order: seeking is inexact."""
    import cv2

    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        position, image = -1.0, None
        for moment in moments:
            while position < moment and capture.grab():
                position = max(position, float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000.0)
                image = None
            if image is None:
                taken, image = capture.retrieve()
                if not taken:
                    return
            yield np.asarray(image, np.uint8)
    finally:
        capture.release()
