"""Discovery payloads and states, against what Home Assistant's documentation asks for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import stream_events
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import SinkError
from edgecap.runtime.streams.event import Event
from edgecap.runtime.streams.sinks.home_assistant import (
    EVENT_TYPES,
    Topics,
    discovery,
    happenings,
    slug,
    state_text,
)
from edgecap.runtime.streams.told import Note, as_told, tell

# Keys that each platform of Home Assistant's MQTT integration cannot do without.
NEEDED = {
    "sensor": {"state_topic"},
    "event": {"state_topic", "event_types"},
    "image": {"image_topic"},
    "switch": {"command_topic"},
    "number": {"command_topic"},
    "button": {"command_topic"},
}
Make = Callable[..., Event]


def announce(snapshots: bool = True) -> dict[str, dict[str, object] | None]:
    topics = Topics("edgecap/tor_2")
    return discovery(
        "Tör 2", topics, model="m", version="1", prefix="homeassistant", snapshots=snapshots
    )


def test_every_entity_has_what_its_platform_needs() -> None:
    announced = announce()
    assert {topic.split("/")[1] for topic in announced} == set(NEEDED)
    ids = set()
    for topic, entity in announced.items():
        prefix, component, node, item, last = topic.split("/")
        assert (prefix, node, last) == ("homeassistant", "edgecap_tor_2", "config")
        assert item.isascii()
        assert entity is not None
        assert NEEDED[component] <= set(entity)
        assert entity["availability_topic"] == "edgecap/tor_2/availability"
        assert entity["device"]["name"] == "Tör 2"  # type: ignore[index]
        ids.add(entity["unique_id"])
    assert len(ids) == 6


def test_without_snapshots_the_image_entity_is_taken_back() -> None:
    announced = announce(snapshots=False)
    gone = [topic for topic, entity in announced.items() if entity is None]
    assert gone == ["homeassistant/image/edgecap_tor_2/snapshot/config"]


@given(text=st.text(max_size=600), sentence=st.text(max_size=600), sure=st.booleans())
def test_states_fit(text: str, sentence: str, sure: bool) -> None:
    state = state_text(tell(stream_events.event(text, sure=sure), sentence=sentence))
    assert len(state) <= 255
    assert "\n" not in state


def test_long_captions_are_cut_on_a_word(make_event: Make) -> None:
    text = "a man in a red shirt stands beside a large brown dog " * 8
    state = state_text(as_told(make_event(text)))
    assert 240 < len(state) <= 255
    assert state.endswith(" ...")
    words = state.removesuffix(" ...").split()
    assert words == text.split()[: len(words)]
    assert len(state_text(as_told(make_event("x" * 300)))) == 255
    assert state_text(as_told(make_event("a dog", sure=False))) == "a dog (not sure)"
    said = tell(make_event("a dog", sure=False), sentence="Not sure, but maybe a dog.")
    assert state_text(said) == "Not sure, but maybe a dog."


def test_happenings_come_hazard_first(make_event: Make) -> None:
    notes = tuple(
        Note(kind, what, what, what)
        for kind, what in (("left", "cat"), ("appeared", "dog"), ("alert", "cyclist"))
    )
    found = happenings(tell(make_event(), notes=notes))
    assert [event["event_type"] for event in found] == ["alert", "appeared", "left", "caption"]
    assert {event["event_type"] for event in found} | {"notice"} == set(EVENT_TYPES)


def test_names_of_cameras() -> None:
    assert slug("Front Porch (left) #2") == "front_porch_left_2"
    assert slug("Tür") == "tur"
    for name in ("", "///", "門"):
        with pytest.raises(SinkError, match="no name for a camera"):
            slug(name)
