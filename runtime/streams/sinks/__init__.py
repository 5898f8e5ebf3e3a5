"""Sinks: where events go."""

from edgecap.runtime.streams.sinks.base import Sink, SinkGone
from edgecap.runtime.streams.sinks.json_lines import JsonLines

__all__ = ["JsonLines", "Sink", "SinkGone"]
