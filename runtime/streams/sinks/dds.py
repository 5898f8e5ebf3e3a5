"""Captions over DDS as ROS 2 nodes send and receive them, without ROS 2.

Topic and type carry ROS 2's names: ``/edgecap/caption_text`` is ``rt/edgecap/caption_text`` of
``std_msgs::msg::dds_::String_``, so that ``ros2 topic echo`` shows it.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from typing import Any

from edgecap.runtime.errors import MissingExtraError, SinkError
from edgecap.runtime.messages.captions import check_topic, sentence_of
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.told import REPEAT, as_told

RELIABILITY = ("reliable", "best_effort")
DURABILITY = ("volatile", "transient_local")
CONTENT = ("text", "json")
TYPE = "std_msgs::msg::dds_::String_"


@dataclass(frozen=True)
class DdsOptions:
    """Where and how captions are published.

    topic : as ROS 2 names it
    domain : 0 to 232; None: ROS_DOMAIN_ID of the environment, else 0
    reliability, durability, depth : quality of service; the defaults are those of ROS 2, and a
        ``transient_local`` topic gives its last ``depth`` captions to those who come later
    content : ``text``: the sentence; ``json``: the whole event
    """

    topic: str = "/edgecap/caption_text"
    domain: int | None = None
    reliability: str = "reliable"
    durability: str = "volatile"
    depth: int = 10
    content: str = "text"

    def __post_init__(self) -> None:
        object.__setattr__(self, "topic", check_topic(self.topic))
        for name, accepted in (
            ("reliability", RELIABILITY), ("durability", DURABILITY), ("content", CONTENT),
        ):  # fmt: skip
            if getattr(self, name) not in accepted:
                raise SinkError(
                    f"{name} is {getattr(self, name)!r}; give one of {', '.join(accepted)}"
                )
        if self.domain is None:
            given = os.environ.get("ROS_DOMAIN_ID", "").strip() or "0"
            if not given.isdecimal():
                raise SinkError(f"ROS_DOMAIN_ID is {given!r}; give a whole number from 0 to 232")
            object.__setattr__(self, "domain", int(given))
        assert self.domain is not None
        if not 0 <= self.domain <= 232:
            raise SinkError(f"the domain is {self.domain}; give a whole number from 0 to 232")
        if not 1 <= self.depth <= 10_000:
            raise SinkError(f"depth is {self.depth}; give a whole number from 1 to 10000")


class Dds:
    """Publishes each caption that is to be said as ``std_msgs/String``.

    Events that a profile stays silent about are not published as text; ``content="json"`` sends
    all of them.

    Raises MissingExtraError without cyclonedds, SinkError for a domain that cannot be joined.
    """

    def __init__(self, options: DdsOptions) -> None:
        try:
            from cyclonedds.core import DDSException
            from cyclonedds.domain import DomainParticipant
            from cyclonedds.pub import DataWriter
            from cyclonedds.topic import Topic
        except ImportError:
            raise MissingExtraError(
                "captions over DDS need the package cyclonedds: pip install 'edgecap[ros]'"
            ) from None
        self.name = f"dds:/{options.topic}"
        self._options = options
        self._string = _string_type()
        assert options.domain is not None
        try:
            self._participant: Any = DomainParticipant(options.domain)
            topic = Topic(self._participant, f"rt{options.topic}", self._string, qos=_qos(options))
            self._writer: Any = DataWriter(self._participant, topic, qos=_qos(options))
        except DDSException as error:
            raise SinkError(
                f"domain {options.domain} of DDS cannot be joined ({error}); look at the network "
                "and at CYCLONEDDS_URI"
            ) from None

    def write(self, event: Event) -> None:
        """Publish an event."""
        if self._options.content == "json":
            text = json.dumps(event.to_dict(), ensure_ascii=False, allow_nan=False)
        else:
            text = "" if as_told(event).verdict == REPEAT else sentence_of(event)
        if text:
            self._writer.write(self._string(data=text))

    def close(self) -> None:
        """Wait a moment for reliable readers that are behind, then leave the domain."""
        from cyclonedds.util import duration

        with contextlib.suppress(Exception):  # what it raises on a timeout differs by version
            self._writer.wait_for_acks(duration(seconds=1))
        self._writer = self._participant = None  # freed in this order


def _string_type() -> Any:
    """``std_msgs/String`` as ROS 2's own type support describes it to DDS."""
    from cyclonedds.idl import make_idl_struct

    return make_idl_struct("String_", TYPE, {"data": str})


def _qos(options: DdsOptions) -> Any:
    from cyclonedds.core import Policy, Qos
    from cyclonedds.util import duration

    policies: list[Any] = [
        Policy.Reliability.Reliable(duration(milliseconds=100))
        if options.reliability == "reliable"
        else Policy.Reliability.BestEffort,
        Policy.History.KeepLast(options.depth),
        # The encoding of ROS 2; without it newer versions would say XCDR2.
        Policy.DataRepresentation(use_cdrv0_representation=True),
    ]
    if options.durability == "volatile":
        return Qos(*policies, Policy.Durability.Volatile)
    # What late readers get is a history of its own, of one sample unless it is said.
    kept = Policy.DurabilityService(
        duration(seconds=0), Policy.History.KeepLast(options.depth), -1, -1, -1
    )
    return Qos(*policies, Policy.Durability.TransientLocal, kept)
