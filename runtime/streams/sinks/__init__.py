"""Sinks: where events go. ``open_sink`` finds the kind by the address."""

from edgecap.runtime.streams.sinks.base import Sink, SinkGone
from edgecap.runtime.streams.sinks.json_lines import JsonLines
from edgecap.runtime.streams.sinks.opening import SinkContext, camera_name, open_sink

__all__ = ["JsonLines", "Sink", "SinkContext", "SinkGone", "camera_name", "open_sink"]
