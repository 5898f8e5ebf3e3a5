"""What a stream says: one event a caption, notices in between, and one report at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from edgecap.runtime.streams.frames import Approach, Header


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
    refresh (unchanged for ``max_age``), asked (``describe_now``), nearer (something comes nearer),
    interval or always (no gate).
    ``truncated``: the deadline ended the search early. ``draft``: what came of the last
    caption where it was verified against this frame: "kept" and said again, "refused" and decoded
    anew, "checked" (it passed and was decoded anew, to see whether that says the same), else None.
    ``header``: of the ROS 2 message that brought the frame, if one did. ``nearer``: as in
    ``Frame``.
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
    truncated: bool = False
    draft: str | None = None
    header: Header | None = None
    nearer: tuple[Approach, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that strict JSON can hold: times also as ISO 8601, no NaN or infinity."""
        return {
            "source": self.source,
            "frame": self.frame,
            "captured_at": _iso(self.captured_at),
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
            "truncated": bool(self.truncated),
            "draft": self.draft,
            **({} if self.header is None else {"header": self.header._asdict()}),
            **({"nearer": [thing._asdict() for thing in self.nearer]} if self.nearer else {}),
        }


@dataclass(frozen=True)
class Notice:
    """Something that happened to a stream and is no caption.

    kind : lost, open, absent, frozen, late, decoder (the camera); clock (the wall clock was set);
        governor (quality lowered or raised); model (exchanged, or the new one refused); stuck, well
        (the watch-dog)
    text : one line for people
    at : seconds since 1970 (UTC)
    details : figures that belong to it, ready for JSON
    """

    source: str
    kind: str
    text: str
    at: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold; the key ``notice`` tells it from a caption."""
        return {
            "notice": self.kind,
            "source": self.source,
            "at": _iso(self.at),
            "text": self.text,
            "details": dict(self.details),
        }


@dataclass(frozen=True)
class StreamReport:
    """The whole run in numbers.

    received = captions + sum(skipped) + dropped["stale"] + dropped["stopped"]: every frame that
    came is accounted for. ``dropped`` may also hold "unreadable" and "late", pictures that gave no
    frame.
    """

    ended: str  # end of source, max captions, duration, stopped, sinks gone or error
    seconds: float
    received: int
    captions: int
    skipped: dict[str, int]  # frames let go, by reason: unchanged, same, early, unsure
    dropped: dict[str, int]  # frames never looked at: stale, stopped, unreadable, late
    undelivered: dict[str, int]  # events that a sink did not take, by the sink's name
    truncated: int = 0  # captions that the deadline cut short
    missed: int = 0  # captions that came after their deadline all the same
    drafts: dict[str, int] = field(default_factory=dict)  # by what came of them, as in ``Event``

    def __str__(self) -> str:
        parts = [f"{self.captions} captions", f"{self.received} frames"]
        parts += [f"{count} skipped ({reason})" for reason, count in self.skipped.items() if count]
        parts += [f"{count} dropped ({reason})" for reason, count in self.dropped.items() if count]
        parts += [f"{n} not delivered ({sink})" for sink, n in self.undelivered.items() if n]
        parts += [f"{count} drafts {what}" for what, count in self.drafts.items() if count]
        parts += [f"{self.truncated} truncated"] * bool(self.truncated)
        parts += [f"{self.missed} deadlines missed"] * bool(self.missed)
        return f"{', '.join(parts)} in {self.seconds:.1f} s; ended: {self.ended}"


def _iso(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _finite(value: float, digits: int) -> float | None:
    number = float(value)
    return round(number, digits) if math.isfinite(number) else None
