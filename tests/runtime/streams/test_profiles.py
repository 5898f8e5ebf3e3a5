"""Profiles: those that come with EdgeCap, what overrides them, and what is wrong with a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("yaml", reason="PyYAML reads profiles")
pytest.importorskip("humanfriendly", reason="humanfriendly reads times")
import stream_events
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.narrator import Narrator
from edgecap.runtime.streams.profiles import load_profile, names, source_of

TEXTS = [source_of(name) for name in names()]


def cut(text: str) -> st.SearchStrategy[str]:
    """The text without a piece of it."""
    place = st.integers(0, len(text))
    return st.tuples(place, place).map(lambda ends: text[: min(ends)] + text[max(ends) :])


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def make(text: str, name: str = "mine.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return make


def test_the_profiles_that_come_along() -> None:
    assert names() == ["assistive", "driving", "smart-home"]
    driving = load_profile("driving")
    assert driving.stream_options().deadline == pytest.approx(0.1)
    assert driving.stream_options().min_interval == pytest.approx(0.1)  # ten a second
    assert {"pedestrian", "cyclist", "stopped car", "red light"} <= set(driving.hazards)
    home = load_profile("smart-home")
    assert home.presence is not None
    assert set(home.presence.groups) == {"person", "pet", "vehicle", "parcel"}
    assert not home.privacy.snapshots
    for name in names():
        assert load_profile(name).about
        assert source_of(name).startswith("# ")


def test_a_file_holds_only_what_differs(write: Write) -> None:
    write("extends: driving\nstream:\n  deadline: 80 ms\n", "fast.yaml")
    path = write(
        "extends: fast.yaml\nabout: mine\ndecoding:\n  beams: 1\nhazards:\n"
        "  dog: {say: a dog, words: [dog]}\n"
    )
    mine, driving = load_profile(path), load_profile("driving")
    assert mine.name == "mine"
    assert mine.stream_options().deadline == pytest.approx(0.08)
    assert mine.stream_options().max_age == driving.stream_options().max_age
    assert set(mine.hazards) == {*driving.hazards, "dog"}
    assert mine.decoding_options() == {"beams": 1}
    assert mine.decoding_options(beams=5) == {"beams": 5}  # the command line wins
    assert mine.stream_options(max_age=7.0, min_interval=None).max_age == 7.0


def test_an_empty_file_is_a_profile_without_opinions(write: Write) -> None:
    profile = load_profile(write(""))
    event = stream_events.event("a dog runs")
    assert profile.zones() == ()
    told = Narrator(profile).tell(event)
    assert (told.verdict, told.sentence, told.notes) == ("said", "A dog runs.", ())


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("stream: {deadlin: 80 ms}", ["stream.deadlin", "did you mean deadline?", "min_interval"]),
        ("hazard: {}", ["hazard is no key", "hazards"]),
        ("hazards: {dog: {say: x, word: [dog]}}", ["hazards.dog.word", "words"]),
        ("stream: {deadline: 80 parsecs}", ["stream.deadline", "80 parsecs", "ms, s, minutes"]),
        ("stream: {deadline: 80}", ["stream.deadline", "80", "no unit"]),
        ('stream: {deadline: "80"}', ["stream.deadline", "80", "with ms, s"]),
        ("stream: {deadline: -3 s}", ["stream.deadline", "-3 s"]),
        ("stream: {max_age: [1]}", ["stream.max_age", "[1]"]),
        ("stream: {gate: magic}", ["gate", "magic", "thumbnail"]),
        ("stream: {max_age: 1 s, min_interval: 2 s}", ["max_age", "min_interval"]),
        ("decoding: {beams: many}", ["decoding.beams", "int"]),
        ("novelty: {same: 7}", ["same is 7"]),
        ("presence: {groups: {cat: [cat]}, appear: 0}", ["presence.appear is 0"]),
        ("presence: {groups: {cat: ['...']}}", ["'cat' is no phrase"]),
        ("privacy: {zones: [[[0, 0], [1, 1]]]}", ["no zone", "three or more"]),
        ("privacy: {zones: [[[0, 0], [1, 1], [2, 0]]]}", ["from 0 to 1"]),
        ("speech: {interrupt: maybe}", ["speech.interrupt", "alerts, always or never"]),
        ("extends: nothing", ["no profile", "driving"]),
        ("extends: mine.yaml", ["extends is"]),
        ("- a list", ["holds no keys"]),
        ("stream: {", ["is no YAML"]),
        ("about: 2001-99-99", ["is no YAML", "month"]),
        ("stream: !!int many", ["is no YAML"]),
        pytest.param("[" * 5000, ["is no YAML"], id="deep"),
        ("1: 2", ["1 is no key"]),
        ("hazards: {1: {say: x, words: [dog]}}", ["hazards"]),
        ("stream: !!python/object/apply:os.system [echo]", ["is no YAML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_place(write: Write, text: str, parts: list[str]) -> None:
    with pytest.raises(OptionsError) as error:
        load_profile(write(text))
    for part in parts:
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@settings(deadline=None, max_examples=100)
@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(TEXTS).flatmap(cut))
def test_any_text_is_a_profile_or_one_clear_line(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8")
    message = ""
    try:
        load_profile(path)
    except OptionsError as error:  # anything else fails the test
        message = str(error)
    assert "\n" not in message


def test_a_name_that_is_none() -> None:
    with pytest.raises(OptionsError, match="assistive, driving, smart-home"):
        load_profile("racing")


def test_driving_tells_a_hazard_at_once_and_once() -> None:
    narrator = Narrator(load_profile("driving"))
    told = [
        narrator.tell(stream_events.event(text, pts=pts))
        for pts, text in (
            (0.0, "a car drives down the road"),
            (0.1, "a man crosses the street"),
            (0.2, "a man walks across the street"),
            (8.0, "a man walks across the street"),
            (8.1, "a man and a boy on bikes at a red traffic light"),
        )
    ]
    assert [[note.what for note in event.alerts] for event in told] == [
        [], ["pedestrian"], [], ["pedestrian"], ["cyclist", "red light"],
    ]  # fmt: skip
    assert told[1].sentence == "Careful, someone on foot. A man crosses the street."
    assert told[3].verdict == "said"  # the same words, but a hazard that had gone is new


def test_a_doubtful_hazard_is_told_as_such() -> None:
    told = Narrator(load_profile("assistive")).tell(
        stream_events.event("a bus on a street", sure=False)
    )
    assert told.sentence == "Careful, maybe traffic. Not sure, maybe a bus on a street."
    assert told.verdict == "said"


def test_who_asks_is_told() -> None:
    narrator = Narrator(load_profile("smart-home"))
    assert narrator(stream_events.event("a yard", pts=0.0)) is not None
    assert narrator(stream_events.event("a yard", pts=1.0)) is None
    told = narrator(stream_events.event("a yard", pts=2.0, reason="asked", sure=False))
    assert told is not None
    assert told.sentence == "Not sure, maybe a yard."


def test_a_caption_without_whole_words_is_not_told() -> None:
    assert Narrator(load_profile("driving"))(stream_events.event("a", truncated=True)) is None


def test_smart_home_is_quiet() -> None:
    narrator = Narrator(load_profile("smart-home"))
    said = []
    for pts, text, sure in (
        (0.0, "a front yard with a fence", True),
        (15.0, "a front yard with a fence", True),
        (16.0, "a woman with a dog", False),  # not sure: nobody hears of it
        (17.0, "a man walks to the door with a box", True),
        (18.0, "a man stands at the door with a box", True),
        (19.0, "a man at a door with a box", True),
        (35.0, "a front yard with a fence", True),
        (50.0, "a front yard with a fence", True),
        (65.0, "a front yard with a fence", True),
    ):
        told = narrator.tell(stream_events.event(text, pts=pts, sure=sure))
        said.append((told.verdict, [(note.kind, note.what) for note in told.notes]))
    assert said == [
        ("said", []),
        ("repeat", []),
        ("repeat", []),
        ("said", []),
        ("said", [("appeared", "person"), ("appeared", "parcel")]),
        ("repeat", []),
        ("repeat", []),  # within the five minutes in which it was said before
        ("repeat", []),
        ("said", [("left", "person"), ("left", "parcel")]),
    ]
    assert narrator.counts["silent"] == 1
