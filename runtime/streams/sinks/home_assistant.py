"""The entities by which Home Assistant finds a camera's captions over MQTT.

Topics and payloads are those of Home Assistant's MQTT discovery:
``<prefix>/<component>/<node>/<object>/config``, retained. The description that goes out beside them
has the shape of Frigate's ``tracked_object_update``, so that automations made for it work.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Any

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.told import Told

LONGEST_STATE = 255  # characters: Home Assistant refuses a longer state
EVENT_TYPES = ("caption", "alert", "appeared", "left", "notice")
ENTITIES = ("sensor", "event", "image", "switch", "number", "button")


@dataclass(frozen=True)
class Topics:
    """Every topic of one camera. ``base`` is ``edgecap/<camera>`` unless another root is given."""

    base: str

    @property
    def availability(self) -> str:
        """``online`` or ``offline``, retained; ``offline`` is also the last will."""
        return f"{self.base}/availability"

    @property
    def state(self) -> str:
        """The caption, 255 characters at most, retained."""
        return f"{self.base}/caption"

    @property
    def attributes(self) -> str:
        """The whole event as JSON, retained."""
        return f"{self.base}/attributes"

    @property
    def happening(self) -> str:
        """One JSON object for each caption, alert, arrival and departure."""
        return f"{self.base}/event"

    @property
    def description(self) -> str:
        """The description as Frigate would send it."""
        return f"{self.base}/tracked_object_update"

    @property
    def image(self) -> str:
        """The captioned frame as JPEG, retained; only where snapshots are asked for."""
        return f"{self.base}/image"

    def command(self, name: str) -> str:
        """Where ``captions`` (ON, OFF), ``min_interval`` (seconds), ``describe`` are set."""
        return f"{self.base}/{name}/set"

    def setting(self, name: str) -> str:
        """Where what is set is told, retained."""
        return f"{self.base}/{name}/state"


def slug(name: str) -> str:
    """A camera's name as a part of topics and ids: lower case ASCII, digits and ``_``."""
    bare = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    made = re.sub(r"[^a-z0-9]+", "_", bare.lower()).strip("_")[:64]
    if not made:
        raise SinkError(f"{name!r} is no name for a camera; give one with letters or digits")
    return made


def discovery(
    camera: str, topics: Topics, *, model: str, version: str, prefix: str, snapshots: bool
) -> dict[str, dict[str, Any] | None]:
    """Topic -> payload of each entity; None removes one that an earlier run may have announced.

    camera : the name that people see
    prefix : Home Assistant's discovery prefix, "homeassistant" unless it was changed there
    """
    node = f"edgecap_{slug(camera)}"
    common = {
        "availability_topic": topics.availability,
        "device": {
            "identifiers": [node],
            "name": camera,
            "manufacturer": "EdgeCap",
            "model": model,
            "sw_version": version,
        },
        "origin": {"name": "EdgeCap", "sw_version": version},
    }
    own: dict[str, dict[str, Any] | None] = {
        "sensor/caption": {
            "name": "Caption",
            "icon": "mdi:image-text",
            "state_topic": topics.state,
            "json_attributes_topic": topics.attributes,
        },
        "event/happening": {
            "name": "Happening",
            "icon": "mdi:eye",
            "event_types": list(EVENT_TYPES),
            "state_topic": topics.happening,
        },
        "image/snapshot": {
            "name": "Snapshot",
            "image_topic": topics.image,
            "content_type": "image/jpeg",
        },
        "switch/captions": {
            "name": "Captions",
            "icon": "mdi:text-recognition",
            "command_topic": topics.command("captions"),
            "state_topic": topics.setting("captions"),
            "payload_on": "ON",
            "payload_off": "OFF",
        },
        "number/min_interval": {
            "name": "Least time between captions",
            "command_topic": topics.command("min_interval"),
            "state_topic": topics.setting("min_interval"),
            "min": 0,
            "max": 3600,
            "step": 0.1,
            "mode": "box",
            "unit_of_measurement": "s",
            "entity_category": "config",
        },
        "button/describe": {
            "name": "Describe now",
            "icon": "mdi:message-image",
            "command_topic": topics.command("describe"),
            "payload_press": "PRESS",
        },
    }
    if not snapshots:
        own["image/snapshot"] = None
    announced: dict[str, dict[str, Any] | None] = {}
    for name, entity in own.items():
        component, item = name.split("/")
        topic = f"{prefix}/{component}/{node}/{item}/config"
        announced[topic] = (
            None if entity is None else {**entity, "unique_id": f"{node}_{item}", **common}
        )
    return announced


def state_text(told: Told) -> str:
    """The caption as a state: 255 characters at most, cut on a word."""
    text = told.sentence or told.text
    if not told.sure and "not sure" not in text.lower():
        text += " (not sure)"
    text = " ".join(text.split())
    if len(text) <= LONGEST_STATE:
        return text
    short = textwrap.shorten(text, LONGEST_STATE, placeholder=" ...")
    return short if len(short) > len(" ...") else text[:LONGEST_STATE]


def attributes(told: Told) -> dict[str, Any]:
    """What goes with the state: the event without its token numbers."""
    return {name: value for name, value in told.to_dict().items() if name != "tokens"}


def happenings(told: Told) -> list[dict[str, Any]]:
    """Payloads for the event entity: alerts first, then who came or went, then the caption."""
    order = {kind: place for place, kind in enumerate(("alert", "appeared", "left"))}
    notes = sorted(told.notes, key=lambda note: order[note.kind])
    moment = told.to_dict()["captured_at"]
    common = {"source": told.source, "frame": told.frame, "captured_at": moment}
    return [
        *(
            {"event_type": note.kind, "what": note.what, "text": note.sentence, **common}
            for note in notes
        ),
        {
            "event_type": "caption",
            "text": told.sentence or told.text,
            "reason": told.reason,
            "sure": told.sure,
            **common,
        },
    ]


def frigate_update(camera: str, told: Told) -> dict[str, Any]:
    """The caption in the shape of Frigate's ``tracked_object_update`` of type description."""
    return {
        "type": "description",
        "id": f"{told.captured_at:.6f}-{slug(camera)}-{told.frame}",
        "description": told.sentence or told.text,
        "camera": slug(camera),
    }
