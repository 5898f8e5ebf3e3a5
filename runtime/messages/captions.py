"""Events as ``edgecap_msgs/Caption`` and ``std_msgs/String``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.frames import Header
from edgecap.runtime.streams.told import as_told

STRING, CAPTION = "std_msgs/msg/String", "edgecap_msgs/msg/Caption"
STRING_SCHEMA = "string data\n"
_RULE = "=" * 80
_HEADER = f"""\
{_RULE}
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
{_RULE}
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""


@cache
def caption_schema() -> str:
    """The definition of ``edgecap_msgs/Caption`` and all it consists of, as bags hold it.

    The first part is the file ``Caption.msg`` of the ROS package ``edgecap_msgs``.
    """
    return Path(__file__).with_name("Caption.msg").read_text(encoding="utf-8") + _HEADER


def header_of_event(event: Event) -> Header:
    """The header of the event's image; of a camera without one, the moment of capture."""
    if event.header is not None:
        return event.header
    sec, nanosec = divmod(round(event.captured_at * 1e9), 1_000_000_000)
    return Header(sec, nanosec, "")


def caption_of(event: Event, model: str = "") -> dict[str, Any]:
    """The fields of ``edgecap_msgs/Caption`` for an event, nested as the message is."""
    header = header_of_event(event)
    latency = event.latency_ms
    return {
        "header": {
            "stamp": {"sec": header.sec, "nanosec": header.nanosec},
            "frame_id": header.frame_id,
        },
        "text": event.text,
        "sentence": as_told(event).sentence,
        "score": float(event.score),
        "confidence": float(event.confidence),
        "sure": bool(event.sure),
        "reason": event.reason,
        "truncated": bool(event.truncated),
        "tokens": [int(token) for token in event.tokens],
        "model": model,
        "source": event.source,
        "latency_ms": float(latency.total),
        "preprocess_ms": float(latency.preprocess),
        "encode_ms": float(latency.encode),
        "decode_ms": float(latency.decode),
    }


def sentence_of(event: Event) -> str:
    """What ``std_msgs/String`` carries: the sentence, with "(not sure)" where no profile told it.

    Empty where a profile stays silent: such an event is not published as a string.
    """
    told = as_told(event)
    if told is event:
        return told.sentence
    return event.text if event.sure else f"{event.text} (not sure)"


def fill(message: Any, values: Mapping[str, Any]) -> Any:
    """Set a message's fields, those of messages within it included; gives the message."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            fill(getattr(message, name), value)
        else:
            setattr(message, name, value)
    return message


def check_topic(topic: str) -> str:
    """A topic's name with its leading slash, as ROS 2 allows it."""
    name = "/" + topic.strip("/")
    parts = name[1:].split("/")
    if not all(part.isascii() and part.isidentifier() for part in parts):
        raise SinkError(
            f"{topic!r} is no topic of ROS 2; give letters, digits and _ between slashes, "
            "such as /camera/captions"
        )
    return name
