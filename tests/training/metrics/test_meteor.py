"""METEOR against the Java program of its authors, or against figures it printed."""

from __future__ import annotations

import importlib.util
import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics import bootstrap, evaluate, meteor_files, tokenize
from edgecap.training.metrics.meteor import BETA, GAMMA, Meteor, score

# Caption, references -> what METEOR 1.5 (-l en -norm) printed.
FIGURES: list[tuple[str, list[str], float]] = [
    (
        "a brown dog runs through the grass",
        ["a dog is running in a field", "the brown dog ran across the lawn"],
        0.3590251634922666,
    ),
    (
        "two children are playing football in a park",
        ["two kids play soccer in the park", "a couple of boys playing with a ball"],
        0.38507242755548526,
    ),
    (
        "a man rides a bike down the street",
        ["a man riding a bicycle on a road", "someone is cycling along a street"],
        0.35803971046047733,
    ),
    (
        "the woman is holding an umbrella",
        ["the woman is holding an umbrella", "a lady with an umbrella"],
        1.0,
    ),
    (
        "a cat sits on a cat on a mat on a cat",
        ["a cat on a mat sits on a cat", "on a mat a cat sits"],
        0.4964527363405998,
    ),
    (
        "a group of people standing around a table",
        ["several people gathered at a table", "a crowd stands near tables"],
        0.17727589409165215,
    ),
    (
        "a large airplane takes off from the runway",
        ["the big plane is taking off", "an aircraft leaves the airport"],
        0.3871040208476873,
    ),
    (
        "a plate of food with meat and vegetables",
        ["a dish with vegetables and meat on it"],
        0.3183239562281801,
    ),
    (
        "the people are waiting for the bus in front of the shop",
        ["people wait in front of a store for a bus", "in front of the shop people wait"],
        0.4577296095283071,
    ),
    (
        "it is organized by the workers",
        ["workers organize it", "the organization of workers"],
        0.29728402898351713,
    ),
    ("a photo of the sky", ["completely different words here"], 0.0),
    ("", ["a dog"], 0.0),
    ("a dog", [""], 0.0),
    (
        "the dog 's ball does n't bounce",
        ["the ball of the dog do not bounce", "the dog 's ball"],
        0.4843990301086137,
    ),
    (
        "a t-shirt with u.s. on it st. patrick",
        ["a shirt saying us", "a t shirt with the u.s."],
        0.4218504851454129,
    ),
    (
        "3 1/2 cups , 1,000 people at 5:30",
        ["3 1/2 cups", "1,000 people , at 5:30"],
        0.5001169927375068,
    ),
    ("le chien court dans l' herbe", ["un chien court dans l' herbe"], 0.4890136663048862),
    ("\u4e00\u53ea\u72d7 \u5728 \u8349\u5730", ["\u4e00\u53ea\u72d7 \u8dd1"], 0.361643067170136),
    (
        "a young boy is about to hit a baseball with his bat",
        ["the little kid gets ready to swing at the ball", "a boy is about to hit a ball"],
        0.3857075280106759,
    ),
    (
        "a man and a woman and a child and a dog",
        ["a dog and a child and a woman and a man"],
        0.48753204453115284,
    ),
]
# Sets in ../shared -> what pycocoevalcap printed for them.
CORPUS = {"coco_val2014_973": 0.08550459425460638, "flickr8k val": 0.2549796498781912}

Java = Callable[[list[tuple[str, list[str]]]], tuple[float, list[float]]]


@pytest.fixture(scope="module")
def meteor() -> Meteor:
    if not all(importlib.util.find_spec(name) for name in ("pycocoevalcap", "snowballstemmer")):
        pytest.skip("the files of METEOR are not installed")
    return Meteor()


@pytest.fixture(scope="module")
def java() -> Java:
    """METEOR's own program: (caption, references) pairs -> corpus score and image scores."""
    module = pytest.importorskip(
        "pycocoevalcap.meteor.meteor", reason="pycocoevalcap is not installed"
    )
    if shutil.which("java") is None:
        pytest.skip("no java, which METEOR's own program needs")
    program = module.Meteor()

    def run(pairs: list[tuple[str, list[str]]]) -> tuple[float, list[float]]:
        found: tuple[float, list[float]] = program.compute_score(
            {i: refs for i, (_, refs) in enumerate(pairs)},
            {i: [text] for i, (text, _) in enumerate(pairs)},
        )
        return found

    return run


def ours(meteor: Meteor, pairs: list[tuple[str, list[str]]]) -> tuple[float, np.ndarray]:
    rows = np.stack(
        [
            meteor.statistics(meteor.sentence(text), [meteor.sentence(one) for one in refs])
            for text, refs in pairs
        ]
    )
    return float(score(rows.sum(axis=0))), score(rows)


def test_figures_of_the_java_program(meteor: Meteor) -> None:
    _, images = ours(meteor, [(text, refs) for text, refs, _ in FIGURES])
    assert images == pytest.approx(np.array([value for *_, value in FIGURES]), abs=1e-12)


@pytest.mark.slow
def test_the_figures_are_what_the_java_program_says(java: Java) -> None:
    _, images = java([(text, refs) for text, refs, _ in FIGURES])
    assert images == pytest.approx([value for *_, value in FIGURES], abs=1e-12)


@pytest.fixture(scope="module")
def sets(shared: Path, human) -> dict[str, list[tuple[str, list[str]]]]:
    """The two sets of ``CORPUS`` as tokens, and scored by nobody yet."""
    folder = shared / "data/metrics_oracle/coco_val2014_973"
    hypotheses = json.loads((folder / "hypotheses.json").read_text(encoding="utf-8"))
    val = (shared / "data/flickr8k/val.txt").read_text().split()
    raw = {
        "coco_val2014_973": [(hypotheses[i], human["oracle"][i]) for i in hypotheses],
        "flickr8k val": [(human["flickr8k"][i][0], human["flickr8k"][i][1:]) for i in val],
    }
    return {
        name: [
            (" ".join(tokenize(text)), [" ".join(tokenize(one)) for one in refs])
            for text, refs in pairs
        ]
        for name, pairs in raw.items()
    }


@pytest.mark.parametrize("name", CORPUS)
def test_sets_score_as_pycocoevalcap_printed(meteor: Meteor, sets, name: str) -> None:
    corpus, _ = ours(meteor, sets[name])
    assert corpus == pytest.approx(CORPUS[name], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", CORPUS)
def test_every_image_of_the_sets_scores_as_in_java(meteor: Meteor, java: Java, sets, name) -> None:
    wanted, images = java(sets[name])
    corpus, found = ours(meteor, sets[name])
    assert wanted == pytest.approx(CORPUS[name], abs=1e-12)
    assert corpus == pytest.approx(wanted, abs=1e-9)
    assert found == pytest.approx(np.array(images), abs=1e-9)


@pytest.mark.slow
def test_noisy_text_scores_as_in_java(meteor: Meteor, java: Java, human) -> None:
    """Random marks, numbers and clitics in text that no tokeniser has cleaned."""
    rng = random.Random(11)
    marks = [*".,;:!?'\"-()/&#$%*+=[]_", "...", "'s", "n't", " - ", " St. ", " 3:30pm ", " $5 "]
    marks += ["\u2019", "\u201c", "\u2014", "\u2013", "\u00e9", " 1st. ", " e.g. ", " o'clock "]
    marks += [" no. 5 ", "1,000", ", ", " the 1990's ", "''", "--", "\u00a0", "\u4eba", "U.S."]

    def noisy(text: str) -> str:
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(marks) + text[at:]
        return text

    images = rng.sample(list(human["flickr8k"].values()), 600)
    pairs = [(noisy(texts[0]).strip(), [noisy(t).strip() for t in texts[1:3]]) for texts in images]
    wanted, per_image = java(pairs)
    corpus, found = ours(meteor, [(text.replace("  ", " "), refs) for text, refs in pairs])
    assert found == pytest.approx(np.array(per_image), abs=1e-9)
    assert corpus == pytest.approx(wanted, abs=1e-9)


def test_each_matcher_has_its_weight(meteor: Meteor) -> None:
    """One content word of three differs; all are matched in one chunk, so nothing is taken off."""
    cases = {
        "black horses run": 0.6,  # stem
        "black cavalry run": 0.8,  # WordNet: "horse cavalry, horse"
    }
    for text, weight in cases.items():
        _, (found,) = ours(meteor, [(text, ["black horse run"])])
        assert found == pytest.approx((2 + weight) / 3, abs=1e-12), text
    # A function word weighs a third of a content word.
    _, (found,) = ours(meteor, [("the xyzzy", ["the plugh"])])
    share = 0.25 / (0.25 + 0.75)
    assert found == pytest.approx(share * (1 - GAMMA * 1.0**BETA), abs=1e-12)


def test_through_evaluate_with_scores_per_image_and_intervals(meteor: Meteor) -> None:
    candidates = {str(i): text for i, (text, *_) in enumerate(FIGURES)}
    references = {str(i): refs for i, (_, refs, _) in enumerate(FIGURES)}
    scores = evaluate(candidates, references, ["METEOR"])
    pairs = [
        (" ".join(tokenize(text)), [" ".join(tokenize(one)) for one in refs])
        for text, refs, _ in FIGURES
    ]
    corpus, images = ours(meteor, pairs)
    assert scores.corpus["METEOR"] == pytest.approx(corpus)
    assert list(scores.per_image["METEOR"].values()) == pytest.approx(list(images))
    interval = bootstrap(scores)["METEOR"]
    assert interval.low < corpus < interval.high


def test_a_caption_equal_to_its_reference_scores_one(meteor: Meteor) -> None:
    texts = ["a dog runs through the grass", "wow"]
    corpus, images = ours(meteor, [(text, ["no", text]) for text in texts])
    assert images == pytest.approx(np.ones(2))
    assert corpus == pytest.approx(1.0)


def test_alignment_against_all_alignments(meteor: Meteor) -> None:
    """Few enough words to try every choice: most exact words, then fewest chunks."""
    from edgecap.training.metrics import meteor as module

    rng = random.Random(3)

    def all_best(words: list[str], others: list[str]) -> tuple[int, int]:
        best = (0, 0)
        options = [[None, *(i for i, o in enumerate(others) if o == word)] for word in words]
        for choice in itertools.product(*options):
            used = [i for i in choice if i is not None]
            if len(set(used)) < len(used):
                continue
            chunks, last = 0, None
            for i in choice:
                if i is not None:
                    chunks += last is None or i != last + 1
                last = i
            best = max(best, (len(used), -chunks))
        return best

    for _ in range(300):
        words = [rng.choice("abc") for _ in range(rng.randint(1, 6))]
        others = [rng.choice("abc") for _ in range(rng.randint(1, 6))]
        matches = [
            (j, 1, i, 1, True)
            for j, word in enumerate(words)
            for i, other in enumerate(others)
            if word == other
        ]
        chosen = [matches[k] for k in module._native.align(len(words), len(others), matches)]
        chunks, end, other_end = 0, -1, -1
        for start, _, other, _, _ in chosen:
            chunks += start != end or other != other_end
            end, other_end = start + 1, other + 1
        assert (len(chosen), -chunks) == all_best(words, others), (words, others)


@pytest.mark.parametrize(
    "match",
    [(2, 1, 0, 1), (-1, 1, 0, 1), (0, 3, 0, 1), (0, 0, 0, 1), (0, 1, 2, 1), (0, 1, 0, 2**30)],
)
def test_matches_outside_of_the_words_are_refused(match: tuple[int, ...]) -> None:
    from edgecap.training.metrics import meteor as module

    with pytest.raises(ValueError, match="outside"):
        module._native.align(2, 2, [(*match, True)])
    with pytest.raises(ValueError, match="out of order"):
        module._native.align(2, 2, [(1, 1, 0, 1, True), (0, 1, 0, 1, True)])


@pytest.mark.parametrize("absent", ["pycocoevalcap", "snowballstemmer"])
def test_without_its_files_it_says_what_to_install(
    absent: str, monkeypatch: pytest.MonkeyPatch, meteor: Meteor
) -> None:
    real_find, real_import = importlib.util.find_spec, importlib.import_module

    def find(name: str, *rest: object) -> object:
        return None if name == absent else real_find(name)

    def load(name: str, *rest: object) -> object:
        if name == absent:
            raise ModuleNotFoundError(name=name)
        return real_import(name)

    monkeypatch.setattr(meteor_files.importlib.util, "find_spec", find)
    monkeypatch.setattr(meteor_files.importlib, "import_module", load)
    with pytest.raises(MissingExtraError, match=r"pip install 'edgecap\[metrics\]'"):
        meteor_files.load.__wrapped__()


def test_a_table_cut_short_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meteor: Meteor
) -> None:
    folder = meteor_files.find()
    (tmp_path / "data").mkdir()
    shutil.copy(folder / "meteor-1.5.jar", tmp_path)
    with open(folder / "data/paraphrase-en.gz", "rb") as file:
        (tmp_path / "data/paraphrase-en.gz").write_bytes(file.read(100_000))
    monkeypatch.setattr(meteor_files, "find", lambda: tmp_path)
    with pytest.raises(DataError, match="install them anew"):
        meteor_files.load.__wrapped__()
