"""Captions drawn into pictures."""

from __future__ import annotations

import textwrap
import unicodedata

import numpy as np
import numpy.typing as npt

from edgecap.runtime.streams.told import Told

WHITE, AMBER, RED = (255, 255, 255), (0, 190, 255), (60, 60, 255)  # BGR
MOST_LINES = 3


def draw_caption(image: npt.NDArray[np.uint8], told: Told | None) -> npt.NDArray[np.uint8]:
    """A copy of ``image``, uint8 [H, W, 3] BGR, with the caption in a dark band at its foot.

    Red where a hazard is named, amber and marked where the model is not sure. OpenCV's line font
    has ASCII alone: accents are dropped, other letters become question marks.
    """
    import cv2

    drawn: npt.NDArray[np.uint8] = image.copy()
    if told is None or not (text := told.sentence or told.text):
        return drawn
    colour = RED if told.alerts else WHITE if told.sure else AMBER
    if not told.sure and "not sure" not in text.lower():
        text += " (not sure)"
    height, width = image.shape[:2]
    scale = max(0.35, min(width, 2 * height) / 1100)
    thick = max(1, round(scale * 1.6))
    (advance, tall), below = cv2.getTextSize("n", cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    columns = max(8, int(0.95 * width / max(advance, 1)))
    step = round((tall + below) * 1.9)
    most = max(1, min(MOST_LINES, height // (2 * step)))
    lines = textwrap.wrap(as_ascii(text), columns, max_lines=most, placeholder=" ...")
    top = max(0, height - step * len(lines) - below)
    drawn[top:] = drawn[top:] // 3
    for index, line in enumerate(lines):
        place = (round(0.02 * width), top + step * index + round(step * 0.75))
        cv2.putText(drawn, line, place, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thick, cv2.LINE_AA)
    return drawn


def as_ascii(text: str) -> str:
    """The text without accents, "?" for letters that ASCII lacks."""
    apart = unicodedata.normalize("NFKD", text)
    bare = "".join(letter for letter in apart if not unicodedata.combining(letter))
    return bare.encode("ascii", "replace").decode("ascii")
