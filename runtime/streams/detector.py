"""An object detector beside the captioner: things and their boxes, by a YOLOX model in ONNX.

YOLOX: Exceeding YOLO Series in 2021 (Ge, Liu, Wang, Li, Sun; arXiv:2107.08430).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import BundleError, OptionsError

if TYPE_CHECKING:
    import onnxruntime as ort

STRIDES = (8, 16, 32)
PAD = 114  # grey of what the letterbox leaves free, as in training
LEAST = 0.3  # scores under this are no detection
OVERLAP = 0.6  # boxes of one class that share more are one thing
BIGGEST = 500_000_000  # bytes of a file that is read
# The order of COCO's 80 classes, https://cocodataset.org.
# fmt: off
COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant",
    "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)
# fmt: on


@dataclass(frozen=True, eq=False)
class Detections:
    """What is in one picture, N things, best first.

    boxes : float32 [N, 4], left, top, right, bottom as shares of the picture's width and height;
        what reaches beyond the picture ends at its edge
    classes : int64 [N], places in ``COCO``
    scores : float32 [N], 0 to 1
    """

    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)


class Detector:
    """Runs a YOLOX model of COCO's classes, such as ``yolox_nano.onnx`` of its authors' releases.

    path : ONNX with one input float32 [1, 3, S, S] (BGR, 0 to 255) and one output [1, N, 85]: a
        box, objectness and 80 class scores for each place, boxes in pixels or as the network's
        head gives them
    threads : of ONNX Runtime; one leaves the others to the captioner

    Raises OptionsError with what the file is, and what is accepted.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int = 1) -> None:
        self._session = _open(Path(path), threads)
        entry = self._session.get_inputs()[0]
        self._input, self.size = entry.name, int(entry.shape[2])
        self._cells, self._strides = _places(self.size)
        blank = self._run(np.full((self.size, self.size, 3), PAD, np.uint8))
        shape = (len(self._cells), 5 + len(COCO))
        scores = blank[..., 4:]
        if blank.shape != shape or scores.min() < 0.0 or scores.max() > 1.0:
            raise OptionsError(f"{path} gives {list(blank.shape)}, not {_wanted(*shape)}")
        # Offsets within a cell are a few cells at most; pixels go up to the picture's size.
        self._in_pixels = float(np.abs(blank[:, :2]).max()) > self.size / 4

    def __call__(
        self, image: npt.NDArray[np.uint8], *, channels: str = "BGR", least: float = LEAST
    ) -> Detections:
        """Find things with scores from ``least`` in uint8 [H, W, 3], "BGR" or "RGB"."""
        import cv2

        height, width = image.shape[:2]
        scale = min(self.size / height, self.size / width)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        canvas = np.full((self.size, self.size, 3), PAD, np.uint8)
        canvas[: inner[1], : inner[0]] = cv2.resize(image, inner)
        found = self._run(canvas if channels == "BGR" else canvas[..., ::-1])
        every = found[:, 4:5] * found[:, 5:]
        classes = every.argmax(axis=1)
        scores = every.max(axis=1)
        at = np.flatnonzero(scores >= least)
        centres, sizes = found[at, :2], found[at, 2:4]
        if not self._in_pixels:
            centres = (centres + self._cells[at]) * self._strides[at]
            sizes = np.exp(sizes) * self._strides[at]
        corner = centres - sizes / 2
        kept = list(
            cv2.dnn.NMSBoxesBatched(
                np.concatenate([corner, sizes], axis=1).tolist(),
                scores[at].tolist(),
                classes[at].tolist(),
                least,
                OVERLAP,
            )
        )
        boxes = np.concatenate([corner, corner + sizes], axis=1)[kept]
        shares = boxes / np.array([*inner, *inner], np.float32)
        return Detections(
            np.clip(shares, 0.0, 1.0).astype(np.float32), classes[at][kept], scores[at][kept]
        )

    def _run(self, canvas: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        pixels = np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32)
        output: Any = self._session.run(None, {self._input: pixels})[0]
        return np.asarray(output[0], np.float32)


def _open(path: Path, threads: int) -> ort.InferenceSession:
    from edgecap.runtime.engines.onnx import open_session

    try:
        size = path.stat().st_size
        if size > BIGGEST:
            raise OptionsError(f"{path} has {size} bytes; a detector has at most {BIGGEST}")
        session = open_session(path.read_bytes(), path.name, threads)
    except OSError as error:
        raise OptionsError(
            f"the detector {path} cannot be read ({error.strerror}); give a YOLOX model in ONNX"
        ) from None
    except BundleError as error:
        raise OptionsError(f"{error}; give a YOLOX model in ONNX as the detector") from None
    inputs, outputs = session.get_inputs(), session.get_outputs()
    shape = list(inputs[0].shape) if len(inputs) == 1 else []
    square = len(shape) == 4 and shape[:2] == [1, 3] and shape[2] == shape[3]
    sized = square and isinstance(shape[2], int) and shape[2] % STRIDES[-1] == 0
    if not sized or len(outputs) != 1 or inputs[0].type != "tensor(float)":
        given = ", ".join(f"{entry.name} {entry.shape}" for entry in (*inputs, *outputs))
        raise OptionsError(f"{path} has {given[:200]}, not {_wanted('N', 5 + len(COCO))}")
    return session


def _wanted(places: int | str, values: int) -> str:
    return (
        "images float32 [1, 3, S, S], S a multiple of 32, and scores from 0 to 1 in "
        f"[1, {places}, {values}]; give a YOLOX model of COCO's 80 classes"
    )


def _places(size: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Cell (x, y) and stride of each output place, float32 [N, 2] and [N, 1]."""
    cells, strides = [], []
    for stride in STRIDES:
        side = size // stride
        rows, columns = np.mgrid[:side, :side]
        cells.append(np.stack([columns, rows], axis=-1).reshape(-1, 2))
        strides.append(np.full((side * side, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
