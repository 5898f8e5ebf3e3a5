"""What the server keeps of one camera: its newest frame, its state, the captions it gives."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.streams.event import Event, Notice
from edgecap.runtime.streams.frames import Frame
from edgecap.serve.hub import Hub

THUMBNAIL = 320  # pixels, the greatest width
WAITING = 8  # frames that wait for their caption
# What a notice says about the camera's state.
STATES = {
    "lost": "lost",
    "absent": "absent",
    "open": "running",
    "frozen": "frozen",
    "late": "late",
    "blocked": "blocked",
    "clear": "running",
    "stuck": "stuck",
    "well": "running",
}


class Viewer:
    """A sink of one camera that hands captions with their pictures to the hub.

    name : of the camera, for people
    pictures : whether thumbnails are made
    """

    def __init__(self, name: str, hub: Hub, pictures: bool) -> None:
        self.name = name
        self.frame: Frame | None = None
        self.state, self.why = "starting", ""
        self.seen = 0.0  # when the last frame was dealt with, on time.monotonic
        self.passed_at = 0.0  # when the gate let the last one pass
        self.passing = False
        self.reason = ""  # of the last caption
        self.moments: list[float] = []  # of the last captions
        self._hub, self._pictures = hub, pictures
        self._passed: OrderedDict[int, Frame] = OrderedDict()

    def restart(self) -> None:
        """Get ready for a new run, whose frames are counted from 0 again."""
        self._passed = OrderedDict()
        self.state, self.why = "starting", ""
        self.moments = []

    def see(self, frame: Frame, passed: bool) -> None:
        """Keep a frame, and those that will have a caption."""
        self.frame, self.passing = frame, passed
        self.seen = time.monotonic()
        if self.state == "starting":
            self.state = "running"
        if passed:
            self.passed_at = self.seen
            self._passed[frame.index] = frame
            while len(self._passed) > WAITING:  # the encoder saw no change in these
                self._passed.popitem(last=False)

    def write(self, event: Event) -> None:
        """Publish a caption with its thumbnail."""
        frame = self._passed.pop(event.frame, None)
        thumbnail = None
        if frame is not None and self._pictures:
            thumbnail = encode_jpeg(frame.image, frame.channels, THUMBNAIL, 80)
        now = time.monotonic()
        self.reason = event.reason
        self.moments = [*(moment for moment in self.moments if now - moment < 10.0), now]
        finished = now if frame is None else frame.monotonic + event.latency_ms.total / 1e3
        self._hub.publish(caption_values(self.name, event), thumbnail, finished)

    def notice(self, notice: Notice) -> None:
        """Keep what a notice says about the camera, and tell listeners."""
        if notice.kind in STATES:
            self.state = STATES[notice.kind]
            self.why = "" if self.state == "running" else notice.text
        self._hub.tell("notice", {**notice.to_dict(), "source": self.name})

    def close(self) -> None:
        """Forget frames that wait."""
        self._passed = OrderedDict()

    def gate(self) -> dict[str, Any]:
        """What the gate does now."""
        held = 0.0 if self.passing or not self.seen else self.seen - self.passed_at
        state = "idle" if not self.seen else "passing" if self.passing else "holding"
        return {"state": state, "held_seconds": round(held, 1), "reason": self.reason}


def caption_values(name: str, event: Event) -> dict[str, Any]:
    """A caption as the console and other clients get it."""
    values = event.to_dict()
    told: dict[str, Any] = {key: values[key] for key in ("sentence", "notes") if key in values}
    return {
        "id": 0,
        "source": name,
        "frame": event.frame,
        "time": values["captured_at"],
        "text": event.text,
        **told,
        "confidence": values["confidence"],
        "sure": event.sure,
        "truncated": event.truncated,
        "reason": event.reason,
        "latency_ms": values["latency_ms"],
        "dropped": values["dropped"]["since_last"],
    }


def encode_jpeg(image: npt.NDArray[np.uint8], channels: str, widest: int, quality: int) -> bytes:
    """A picture, uint8 [H, W, 3], as a JPEG of at most ``widest`` pixels across."""
    import cv2

    height, width = image.shape[:2]
    if width > widest:
        size = (widest, max(1, round(height * widest / width)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    if channels == "RGB":
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), np.uint8)
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"a picture of {width} x {height} pixels cannot be written as JPEG")
    return data.tobytes()
