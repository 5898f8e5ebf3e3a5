"""Live streams: a source of frames, a gate, a captioner and sinks, joined by a pipeline."""

from edgecap.runtime.streams.cameras import Cameras, Feed, Renewal
from edgecap.runtime.streams.event import Dropped, Event, Latency, Notice, StreamReport
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.gate import AlwaysGate, Decision, FeatureGate, Gate, ThumbnailGate
from edgecap.runtime.streams.options import SourceOptions, StreamOptions
from edgecap.runtime.streams.pipeline import Pipeline
from edgecap.runtime.streams.sinks import JsonLines, Sink, SinkGone
from edgecap.runtime.streams.sources import Source, open_source

__all__ = [
    "AlwaysGate",
    "Cameras",
    "Decision",
    "Dropped",
    "Event",
    "FeatureGate",
    "Feed",
    "Frame",
    "Gate",
    "JsonLines",
    "Latency",
    "Notice",
    "Pipeline",
    "Renewal",
    "Sink",
    "SinkGone",
    "Source",
    "SourceOptions",
    "StreamOptions",
    "StreamReport",
    "ThumbnailGate",
    "open_source",
]
