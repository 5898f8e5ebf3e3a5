"""What a stream says: one event a caption, and one report at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


@dataclass(frozen=True)
class Latency:
    """Milliseconds by stage for one caption.

    capture_age : the frame's age when captioning began (waiting and gate)
    preprocess, encode, decode : the captioner's own stages
    total : from the frame's capture to the finished event
    """

    capture_age: float
    preprocess: float
    encode: float
    decode: float
    total: float


@dataclass(frozen=True)
class Dropped:
    """Frames that came before this one and were never looked at."""

    since_last: int  # after the frame captioned before
    total: int
    by_reason: dict[str, int] = field(default_factory=dict)  # totals: stale, unreadable


@dataclass(frozen=True)
class Event:
    """One caption of a stream.

    ``captured_at`` is in seconds since 1970 (UTC); ``pts`` and ``frame`` as in ``Frame``;
    ``text`` to ``sure`` as in ``Caption``; ``reason`` is why it was said: first, changed,
    refresh (unchanged for ``max_age``), interval or always (no gate).
    """

    source: str
    frame: int
    captured_at: float
    pts: float | None
    text: str
    tokens: tuple[int, ...]
    score: float
    confidence: float
    sure: bool
    reason: str
    latency_ms: Latency
    dropped: Dropped

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that strict JSON can hold: times also as ISO 8601, no NaN or infinity."""
        moment = datetime.fromtimestamp(self.captured_at, timezone.utc)
        return {
            "source": self.source,
            "frame": self.frame,
            "captured_at": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "captured_at_unix": round(self.captured_at, 3),
            "pts": None if self.pts is None else _finite(self.pts, 3),
            "text": self.text,
            "tokens": [int(token) for token in self.tokens],
            "score": _finite(self.score, 6),
            "confidence": _finite(self.confidence, 6),
            "sure": bool(self.sure),
            "reason": self.reason,
            "latency_ms": {
                name: _finite(getattr(self.latency_ms, name), 3)
                for name in ("capture_age", "preprocess", "encode", "decode", "total")
            },
            "dropped": {
                "since_last": self.dropped.since_last,
                "total": self.dropped.total,
                "by_reason": dict(self.dropped.by_reason),
            },
        }


@dataclass(frozen=True)
class StreamReport:
    """The whole run in numbers.

    received = captions + sum(skipped) + dropped["stale"] + dropped["stopped"]: every frame that
    came is accounted for. ``dropped`` may also hold "unreadable", pictures that gave no frame.
    """

    ended: str  # end of source, max captions, duration, stopped, sinks gone or error
    seconds: float
    received: int
    captions: int
    skipped: dict[str, int]  # frames the gate let go, by reason: unchanged, early
    dropped: dict[str, int]  # frames never looked at, by reason: stale, stopped, unreadable
    undelivered: dict[str, int]  # events that a sink did not take, by the sink's name

    def __str__(self) -> str:
        parts = [f"{self.captions} captions", f"{self.received} frames"]
        parts += [f"{count} skipped ({reason})" for reason, count in self.skipped.items() if count]
        parts += [f"{count} dropped ({reason})" for reason, count in self.dropped.items() if count]
        parts += [f"{n} not delivered ({sink})" for sink, n in self.undelivered.items() if n]
        return f"{', '.join(parts)} in {self.seconds:.1f} s; ended: {self.ended}"


def _finite(value: float, digits: int) -> float | None:
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None
