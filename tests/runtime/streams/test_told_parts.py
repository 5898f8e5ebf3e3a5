"""Novelty, hazards, presence and sentences, each alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import OptionsError
from edgecap.runtime.streams.hazards import Hazard, Hazards
from edgecap.runtime.streams.novelty import Novelty, content_words, similarity
from edgecap.runtime.streams.phrases import Phrases
from edgecap.runtime.streams.presence import Presence
from edgecap.runtime.streams.sentences import sentence, tell_aloud
from edgecap.runtime.streams.told import Note

WORDS = st.lists(
    st.sampled_from(["a", "the", "man", "men", "dog", "dogs", "runs", "red", "car", "grass"]),
    max_size=9,
)


def test_small_differences_are_no_news() -> None:
    novelty = Novelty(same=0.75, refresh=60.0)
    assert novelty.judge("a dog runs through the grass", 0.0) == "said"
    assert novelty.judge("A dog runs through grass.", 1.0) == "repeat"
    assert novelty.judge("dogs run through the grass", 2.0) == "repeat"
    assert novelty.judge("a dog jumps over a fence", 3.0) == "said"
    assert novelty.judge("a man with a dog runs through the grass", 4.0) == "repeat"
    assert novelty.judge("a man in a red shirt", 5.0) == "said"
    assert novelty.judge("a man in a blue shirt", 6.0) == "said"


def test_a_wavering_model_is_not_told_for_ever() -> None:
    novelty = Novelty(refresh=1000.0, memory=30.0)
    one, other = "a cat on a sofa", "a person in a kitchen"
    verdicts = [novelty.judge((one, other)[turn % 2], float(turn)) for turn in range(20)]
    assert verdicts == ["said", "said", *["repeat"] * 18]
    assert novelty.judge(one, 100.0) == "said"  # out of memory, and not the last one
    assert novelty.judge(one, 200.0) == "repeat"  # the last one holds whatever its age


def test_refresh_after_the_greatest_age() -> None:
    novelty = Novelty(refresh=10.0)
    verdicts = [novelty.judge("a cat", float(second)) for second in range(0, 32, 4)]
    assert verdicts == [
        "said", "repeat", "repeat", "refresh", "repeat", "repeat", "refresh", "repeat",
    ]  # fmt: skip


def test_a_clock_that_goes_back_silences_nobody() -> None:
    novelty = Novelty()
    assert novelty.judge("a cat", 1e9) == "said"
    assert novelty.judge("a cat", 5.0) == "said"
    hazards = Hazards({"cat": Hazard(("cat",), "a cat")})
    assert hazards.judge("a cat", True, 1e9)
    assert hazards.judge("a cat", True, 5.0)


@given(one=WORDS, other=WORDS)
def test_similarity_is_dice(one: list[str], other: list[str]) -> None:
    a, b = content_words(" ".join(one)), content_words(" ".join(other))
    assert similarity(a, b) == similarity(b, a)
    assert similarity(a, a) == 1.0
    assert 0.0 <= similarity(a, b) <= 1.0
    assert (similarity(a, b) == 1.0) == (a == b)
    if not a & b and (a or b):
        assert similarity(a, b) == 0.0


def test_words_of_meaning() -> None:
    assert content_words("Two men in the red buses") == {"two", "man", "red", "buse"}
    assert content_words("dogs") == content_words("a dog")
    assert content_words("glass") == {"glass"}
    assert content_words("it is on") == {"it", "is", "on"}  # nothing else is left
    assert content_words("") == frozenset()


def test_bad_values() -> None:
    for make in (
        lambda: Novelty(same=float("nan")),
        lambda: Novelty(refresh=-1.0),
        lambda: Novelty(memory=-1.0),
        lambda: Phrases({"a": ["..."]}),
        lambda: Phrases({"a": ["car ..."]}),
        lambda: Phrases({"a": [" !? "]}),
    ):
        with pytest.raises(OptionsError):
            make()


def test_phrases() -> None:
    phrases = Phrases({"light": ["red light", "light ... red"], "car": ["car"], "T": ["T-shirt"]})
    assert phrases.find("a red light") == {"light": "red light"}
    assert phrases.find("The light that is now red!") == {"light": "light that is now red"}
    assert phrases.find("the light of a lamp in a red room") == {}  # more than three words between
    assert phrases.find("a scar on carpet") == {}  # whole words
    assert phrases.find("cars") == {}  # as they are spelt
    assert phrases.find("a t-shirt in a car") == {"car": "car", "T": "t-shirt"}
    assert phrases.find("red red light") == {"light": "red light"}
    assert phrases.words()["light"] == {"red", "light"}


def test_a_hazard_is_told_again_after_it_was_gone() -> None:
    hazards = Hazards({"car": Hazard(("car",), "a car")}, again=5.0)
    told = [
        bool(hazards.judge(text, True, now))
        for now, text in ((0, "a car"), (4, "a car"), (8, "a car"), (14, "a car"), (15, "a tree"))
    ]
    assert told == [True, False, False, True, False]


def test_appearing_and_leaving_without_jitter() -> None:
    presence = Presence({"dog": ["dog"]}, appear=2, leave=2, after=10.0)
    story = [
        (0, "a dog", True, []),
        (1, "a tree", True, []),
        (2, "a dog", True, []),
        (3, "a dog", False, []),  # not sure: does not count
        (4, "a dog", True, ["appeared"]),
        (5, "a tree", True, []),
        (6, "a dog", True, []),  # jitter
        (7, "a tree", True, []),
        (8, "a tree", True, []),  # two captions, but not yet ten seconds
        (16, "a tree", True, ["left"]),
        (17, "a tree", True, []),
    ]
    for now, text, sure, kinds in story:
        assert [note.kind for note in presence.judge(text, sure, float(now))] == kinds, now
    assert presence.present == ()


@given(
    story=st.lists(
        st.tuples(st.sampled_from(["dog", "tree"]), st.booleans(), st.floats(0, 1e6)), max_size=60
    )
)
def test_comings_and_goings_alternate(story: list[tuple[str, bool, float]]) -> None:
    """Whatever the captions and the clock: appeared, left, appeared ... and never twice."""
    presence = Presence({"dog": ["dog"]})
    kinds = [note.kind for text, sure, now in story for note in presence.judge(text, sure, now)]
    assert kinds == ["appeared", "left"] * (len(kinds) // 2) + ["appeared"] * (len(kinds) % 2)


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a dog runs", "A dog runs."),
        ("a picture of a dog", "A dog."),
        ("in this image we can see a dog and", "A dog."),
        ("In this image, there is a dog.", "A dog."),
        ("a close-up view of a dog in the picture", "A dog."),
        ("a black and white photo of a dog", "A dog."),
        ("this is an image of a dog", "A dog."),
        ("a man looks at a picture of a dog", "A man looks at a picture of a dog."),
        ("a man standing next to a", "A man standing."),
        ("two dogs, in the", "Two dogs."),
        ("  spaced \n out ", "Spaced out."),
        ("a the of", ""),
        ("", ""),
    ],
)
def test_sentences_are_whole(caption: str, said: str) -> None:
    assert sentence(caption) == said
    if said:
        assert sentence(caption, sure=False).startswith("Not sure, maybe ")


@given(text=st.text(max_size=80))
def test_sentences_end_and_settle(text: str) -> None:
    said = sentence(text)
    assert not said or said.endswith(".")
    assert "\n" not in said


def test_hazard_first() -> None:
    notes = [
        Note("left", "cat", "", "Cat left."),
        Note("alert", "car", "car", "Careful, a car."),
        Note("appeared", "dog", "dog", "Dog appeared."),
    ]
    said = tell_aloud("a dog beside a car", notes)
    assert said == "Careful, a car. Dog appeared. Cat left. A dog beside a car."
