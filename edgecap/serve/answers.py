"""The shapes of the server's answers, from which ``/openapi.json`` is made."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Counts = dict[str, int]


class Answer(Struct, forbid_unknown_fields=True):
    """Base of all."""


class Error(Answer):
    """What went wrong, in one line."""

    error: str


class PostedLatency(Answer):
    """Milliseconds by stage; ``total`` begins when the whole picture has arrived."""

    receive: float
    preprocess: float
    queue: float
    encode: float
    decode: float
    total: float


class PostedCaption(Answer):
    """The caption of a posted picture. ``batch``: pictures that were encoded with it, itself too"""

    text: str
    confidence: Share
    sure: bool
    truncated: bool
    latency_ms: PostedLatency
    batch: int
    model: str


class CaptionLatency(Answer):
    """Milliseconds by stage of a camera's caption.

    capture_age : from the frame's capture to the begin of captioning
    total : from the capture to the caption
    deliver : from the caption to its event
    """

    capture_age: float
    preprocess: float
    encode: float
    decode: float
    total: float
    deliver: float


class Note(Answer):
    """What a profile found in a caption: a hazard, somebody who came or went."""

    kind: str
    what: str
    words: str
    sentence: str


class CameraCaption(Answer):
    """A caption of a camera. ``dropped``: frames since the last one that nobody looked at."""

    id: int
    source: str
    frame: int
    time: str
    text: str
    confidence: Share
    sure: bool
    truncated: bool
    reason: str
    latency_ms: CaptionLatency
    dropped: int
    thumbnail: str | None
    sentence: str | None = None
    notes: list[Note] = []


class Gate(Answer):
    """state : "idle" before the first frame, "passing" while frames change, else "holding"."""

    state: str
    held_seconds: float
    reason: str


class SourceStatus(Answer):
    """One camera. ``state``: "starting", "running", "ended", or what is wrong, such as "lost"."""

    name: str
    state: str
    why: str
    frames: int
    captions: int
    skipped: Counts
    dropped: Counts
    last_frame_age_ms: float | None
    captions_per_second: float
    gate: Gate


class RequestStatus(Answer):
    """Posted pictures: now without an answer, answered, refused because too many waited."""

    waiting: int
    done: int
    refused: int


class ServerStatus(Answer):
    """The numbers of all cameras together, and of each."""

    time: str
    version: str
    uptime_seconds: float
    healthy: bool
    problem: str | None
    model: str
    engine: str
    profile: str
    pictures: bool
    frames: int
    captions: int
    skipped: Counts
    dropped: Counts
    captions_per_second: float
    gate: Gate | None
    sources: list[SourceStatus]
    requests: RequestStatus
    viewers: int


class Asked(Answer):
    """Names of the cameras whose next frame will be captioned."""

    asked: list[str]


class ProfileName(Answer):
    """A profile, by its name."""

    name: str


class AboutProfile(Answer):
    """A profile that may be switched to."""

    name: str
    about: str


class Profiles(Answer):
    """The profile in force, and all."""

    current: str
    profiles: list[AboutProfile]


class CurrentProfile(Answer):
    """The profile in force."""

    current: str


class Token(Answer):
    """What the server was started with."""

    token: str


class Done(Answer):
    """It has been done."""

    ok: bool


class Health(Answer):
    """``error``: why it fails."""

    status: str
    error: str | None = None
