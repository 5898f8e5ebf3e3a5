"""Events made by hand for the tests of streams."""

from __future__ import annotations

from typing import Any

from edgecap.runtime.streams.event import Dropped, Event, Latency


def event(text: str = "a dog runs through the grass", frame: int = 0, **changes: Any) -> Event:
    """An event of the camera ``porch``, a second a frame, from 1 March 2026 on."""
    values: dict[str, Any] = {
        "source": "porch",
        "frame": frame,
        "captured_at": 1772323200.0 + frame,
        "pts": float(frame),
        "text": text,
        "tokens": (5, 6, 2),
        "score": -0.5,
        "confidence": 0.75,
        "sure": True,
        "reason": "changed",
        "latency_ms": Latency(1.0, 2.0, 3.0, 4.0, 10.0),
        "dropped": Dropped(0, 0, {}),
    }
    return Event(**(values | changes))
