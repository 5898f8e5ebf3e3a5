"""Facts read off captions, their union in a scene graph, and the WordNet beneath."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics import tokenize, wordnet
from edgecap.training.metrics.scene_graph import Concept, FactExtractor, SceneGraph, parser
from edgecap.training.metrics.scene_graph.rules import sentence_facts


@pytest.fixture(scope="module")
def words() -> wordnet.WordNet:
    try:
        return wordnet.load()
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def extractor() -> FactExtractor:
    try:
        parser.language_model()
    except MissingExtraError as error:
        pytest.skip(str(error))
    return FactExtractor()


# Rules: sentences that the papers name for them, and captions.


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A man is riding a horse.", "man, horse, man|ride|horse"),
        ("A woman is smiling.", "woman, woman|smile"),
        ("The man is a rider.", "man, rider, man|rider"),
        ("A smart woman.", "woman, woman|smart"),
        ("The man is tall.", "man, man|tall"),
        ("A woman is in the house.", "woman, house, woman|in|house"),
        ("The man's watch.", "man, watch, man|have|watch"),
        ("A cat sitting in a chair.", "cat, chair, cat|sit in|chair"),
        ("A dog is walked by a girl.", "dog, girl, girl|walk|dog"),
        ("There is a dog on the grass.", "dog, grass, dog|on|grass"),
        ("A dog that is sleeping on a bed", "dog, bed, dog|sleep on|bed"),
        ("A lamp is next to a bed.", "lamp, bed, lamp|next to|bed"),
        ("A red and white bus", "bus, bus|red, bus|white"),
        ("Two young boys", "boy, boy|two, boy|young"),
        ("A fire truck", "truck|fire"),
        ("A slope covered in snow", "slope, snow, slope|cover in|snow"),
        (
            "A man and a woman are holding an umbrella.",
            "man, woman, umbrella, man|hold|umbrella, woman|hold|umbrella",
        ),
        ("A man is holding his dog.", "man, dog, man|hold|dog, man|have|dog"),
        ("A boy picks up a ball.", "boy, ball, boy|pick up|ball"),
        ("A cat is sitting on top of a car.", "cat, top, car, cat|sit on top of|car"),
        ("A bus is parked.", "bus"),
        ("", ""),
    ],
)
def test_facts(caption: str, expected: str, extractor: FactExtractor) -> None:
    found = extractor.facts([tokenize(caption)])[0]
    assert {"|".join(fact) for fact in found} == set(filter(None, expected.split(", ")))


def test_quantifiers_and_pronouns_of_schuster_et_al(extractor: FactExtractor) -> None:
    """Their running example, with the plural kept as one thing as SPICE does."""
    found = set(extractor.facts([tokenize("Both of the men are riding their horses.")])[0])
    assert ("man", "ride", "horse") in found
    assert ("man", "have", "horse") in found
    found = set(extractor.facts([tokenize("A lot of dogs are sleeping on the floor.")])[0])
    assert ("dog", "sleep on", "floor") in found
    assert ("lot", "sleep on", "floor") not in found


def test_verbs_keep_the_e_of_their_base(extractor: FactExtractor) -> None:
    captions = ["a man riding a horse", "a man sitting on a bench", "a boy staring at a bus"]
    found = extractor.facts(tokenize(caption) for caption in captions)
    relations = [{fact[1] for fact in own if len(fact) == 3} for own in found]
    assert relations == [{"ride"}, {"sit on"}, {"stare at"}]


def test_equal_captions_are_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, ...]] = []

    def parse(captions: list[tuple[str, ...]]) -> list[list[parser.Sentence]]:
        seen.extend(captions)
        return [[(parser.Word("dog", "dog", "NN", "ROOT", 0),)] for _ in captions]

    monkeypatch.setattr("edgecap.training.metrics.scene_graph.extract.parse", parse)
    extractor = FactExtractor()
    assert extractor.facts([["a"], ["b"], ["a"]]) == [(("dog",),)] * 3
    assert extractor.facts([["b"], ["c"]]) == [(("dog",),)] * 2
    assert seen == [("a",), ("b",), ("c",)]


@given(st.data())
def test_any_tree_gives_facts_without_a_crash(data: st.DataObject) -> None:
    """Whatever a parser makes of nonsense, every word but the root hanging off some other."""
    size = data.draw(st.integers(1, 9))
    tags = st.sampled_from(["NN", "NNS", "VBG", "VBN", "VBZ", "IN", "JJ", "DT", "PRP", "WDT", "CD"])
    labels = st.sampled_from(
        [
            *(
                "nsubj",
                "nsubjpass",
                "dobj",
                "pobj",
                "prep",
                "agent",
                "amod",
                "acl",
                "relcl",
                "conj",
            ),
            *(
                "cc",
                "attr",
                "acomp",
                "expl",
                "poss",
                "npadvmod",
                "compound",
                "nummod",
                "det",
                "aux",
            ),
            *("advmod", "prt", "dative", "acomp"),
        ]
    )
    texts = st.sampled_from(
        ["be", "next", "to", "on", "top", "of", "lot", "a", "dog", "some", "it"]
    )
    order = data.draw(st.permutations(range(size)))
    sentence: list[parser.Word | None] = [None] * size
    for place, i in enumerate(order):
        head = i if place == 0 else order[data.draw(st.integers(0, place - 1))]
        label = "ROOT" if place == 0 else data.draw(labels)
        text = data.draw(texts)
        sentence[i] = parser.Word(text, text, data.draw(tags), label, head)
    for fact in sentence_facts(tuple(word for word in sentence if word is not None)):
        assert 1 <= len(fact) <= 3
        assert all(fact)


# The graph: the example in the unit tests of the official scorer, and the rules of its merging.


def test_repeated_facts_are_one(words: wordnet.WordNet) -> None:
    once = [
        ("bus",),
        ("bus", "red"),
        ("bus", "double-decker"),
        ("street",),
        ("bus", "on", "street"),
    ]
    often = [("bus",), ("bus", "red"), ("bus", "on", "street"), ("bus", "double-decker")]
    for stated in (once, [*often, ("street",), *often, ("bus",)]):
        graph = SceneGraph(words, stated)
        assert sorted("|".join(map(str, fact)) for fact in graph.tuples()) == [
            "bus",
            "bus|double-decker",
            "bus|on|street",
            "bus|red",
            "street",
        ]


def test_synonyms_are_one_thing(words: wordnet.WordNet) -> None:
    graph = SceneGraph(
        words,
        [
            ("horse", "stone-gray"),
            ("horse", "stone-grey"),
            ("building", "behind", "car"),
            ("motorcar", "blue"),
            ("automobile", "near", "building"),
            ("auto", "be near", "building"),
        ],
    )
    found = {"|".join(map(str, fact)) for fact in graph.tuples()}
    cars = "auto/automobile/car/motorcar"
    assert {cars, f"{cars}|blue", f"{cars}|near|building", f"building|behind|{cars}"} <= found
    assert len([fact for fact in found if fact.startswith("horse|")]) == 1


def test_a_thing_joins_the_thing_most_like_it() -> None:
    net = wordnet.WordNet(
        {"a": frozenset({1, 2}), "b": frozenset({2, 3, 4, 5}), "x": frozenset({2, 3, 4})}, {}
    )
    graph = SceneGraph(net, [("a",), ("b",), ("x",)])
    # a and b share synset 2 already.
    assert [str(node.concept) for node in graph.nodes] == ["a/b/x"]
    net = wordnet.WordNet(
        {"a": frozenset({1, 2}), "b": frozenset({3, 4}), "x": frozenset({2, 3, 4})}, {}
    )
    graph = SceneGraph(net, [("a",), ("b",), ("x",)])
    assert [str(node.concept) for node in graph.nodes] == ["a", "b/x"]


def test_concepts_match_by_word_or_synset() -> None:
    # The cases of the official unit test.
    blue, other_blue, azure = (
        Concept({"blue"}, {1}),
        Concept({"blue"}, {2}),
        Concept({"azure"}, {1}),
    )
    red, color = Concept({"red"}, {2}), Concept({"color"}, {1, 2, 3})
    assert blue.same(Concept({"blue"}, {1}))
    assert not any(blue.same(o) for o in (other_blue, azure, red, color))
    assert all(blue.matches(o) for o in (other_blue, azure, color))
    assert not blue.matches(red)
    assert red.matches(color)


# WordNet


def test_synonyms_and_base_forms(words: wordnet.WordNet) -> None:
    # Facts of WordNet 3.0 that its documentation and its online search show.
    assert words.of("car") & words.of("automobile")
    assert not words.of("dog") & words.of("cat")
    assert words.of("hot dog") & words.of("frankfurter")
    assert words.base_forms("geese") == ("goose",)
    assert words.base_forms("churches") == ("church",)
    assert words.base_forms("riding") == ("ride",)
    assert words.base_forms("firemen") == ("fireman",)
    assert words.base_forms("glass") == ()
    assert words.of("Bicycles") >= words.of("bicycle") > frozenset()
    assert words.of("edgecap") == frozenset()


def test_wordnets_own_files_say_the_same(words: wordnet.WordNet) -> None:
    if not (wordnet.WORDNET_FOLDER / "index.noun").is_file():
        pytest.skip("Debian's wordnet-base is not installed")
    own = wordnet.from_folder(wordnet.WORDNET_FOLDER)
    assert own.synsets.keys() == words.synsets.keys()
    assert {w: len(s) for w, s in own.synsets.items()} == {
        w: len(s) for w, s in words.synsets.items()
    }


def test_reads_a_folder_of_wordnet_files(tmp_path: Path) -> None:
    for part in wordnet.PARTS:
        (tmp_path / f"index.{part}").write_text("  1 This software and database ...\n")
        (tmp_path / f"{part}.exc").write_text("geese goose\n" if part == "noun" else "")
    with open(tmp_path / "index.noun", "a", encoding="utf-8") as file:
        file.write("goose n 2 3 @ ~ #m 2 1 01855672 10177150  \ncar n 1 1 @ 1 1 02958343  \n")
    with open(tmp_path / "index.verb", "a", encoding="utf-8") as file:
        file.write("goose v 1 1 @ 1 0 01855672  \n")
    net = wordnet.from_folder(tmp_path)
    assert len(net.of("geese")) == 3
    assert net.of("cars") == net.of("car") == {2958343}
    (tmp_path / "index.adv").unlink()
    with pytest.raises(DataError, match="no folder of WordNet files"):
        wordnet.from_folder(tmp_path)


def test_a_jar_without_synonyms_is_named(tmp_path: Path) -> None:
    jar = tmp_path / "meteor-1.5.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("Meteor.class", b"")
    with pytest.raises(DataError, match=r"meteor-1\.5\.jar"):
        wordnet.from_meteor_jar(jar)
    jar.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"meteor-1\.5\.jar"):
        wordnet.from_meteor_jar(jar)


# What is missing is named


def test_missing_wordnet_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(wordnet, "WORDNET_FOLDER", tmp_path)
    with pytest.raises(MissingExtraError, match="wordnet-base"):
        wordnet.load.__wrapped__()


def test_a_missing_parser_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtraError, match="spacy is not installed; pip install 'spacy"):
        parser.language_model.__wrapped__()


def test_a_missing_model_says_what_to_install(
    extractor: FactExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parser, "MODELS", ("no_such_model",))
    with pytest.raises(MissingExtraError, match="no English model"):
        parser.language_model.__wrapped__()
