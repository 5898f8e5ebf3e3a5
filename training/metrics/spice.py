"""SPICE (Anderson et al., ECCV 2016): how many facts of a caption the references state.

Captions are parsed into things, attributes and relations; the references of an image make one
scene graph in which synonyms are one thing; the score of an image is the F1 of the caption's facts
against that graph, and the score of a set is the mean over its images.

The official scorer is a Java program on Stanford CoreNLP 3.6. This module reads spaCy's parse with
the same kind of rules, so single images differ; ``compute_official`` runs the Java program.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import math
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics.base import CaptionSet, MetricResult, Tokens, mean_result
from edgecap.training.metrics.scene_graph import Fact, FactExtractor, SceneGraph
from edgecap.training.metrics.scene_graph.graph import ConceptTuple
from edgecap.training.metrics.wordnet import WordNet, load

NUMBERS = frozenset({
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
})  # fmt: skip
COLORS = frozenset({
    "black", "brown", "blue", "red", "yellow", "pink", "gray", "grey", "green", "dark", "light",
    "white", "cream", "orange", "purple", "maroon", "beige", "violet",
})  # fmt: skip
SIZES = frozenset({
    "baby", "big", "broad", "bulky", "chunky", "compact", "enormous", "fat", "giant",
    "gigantic", "grand", "great", "heavy", "huge", "immense", "large", "lean", "little",
    "massive", "mini", "miniature", "narrow", "oversized", "overweight", "petite", "plump",
    "short", "skinny", "slender", "slim", "small", "tall", "thick", "thin", "tiny", "towering",
    "vast", "wide",
})  # fmt: skip
CATEGORIES = ("Object", "Attribute", "Relation", "Color", "Cardinality", "Size")

CORENLP_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")


@dataclass(frozen=True)
class FactScore:
    """Counts of one image, or of one category of its facts.

    matched : facts of the candidate that the references state
    candidate, reference : facts in the candidate and in the graph of all references
    """

    matched: int
    candidate: int
    reference: int

    @property
    def precision(self) -> float:
        return self.matched / self.candidate if self.candidate else 0.0

    @property
    def recall(self) -> float:
        # Two facts of a candidate can match the same one, in which references merged synonyms.
        return min(self.matched / self.reference, 1.0) if self.reference else 0.0

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True)
class ImageSpice:
    """Scores of one image.

    all : over all facts; its f1 is SPICE
    categories : key of ``CATEGORIES`` -> counts of the facts in it. "Color", "Cardinality" and
        "Size" are kinds of attributes. The official means leave an image out of a category of
        which its references have no fact.
    candidate_facts, reference_facts : words of the facts; merged synonyms are joined by "/"
    """

    all: FactScore
    categories: dict[str, FactScore]
    candidate_facts: tuple[Fact, ...]
    reference_facts: tuple[Fact, ...]


class Spice:
    """Scores captions, each parsed once.

    Raises MissingExtraError where the parser's model or WordNet is not installed.
    """

    def __init__(
        self, extractor: FactExtractor | None = None, wordnet: WordNet | None = None
    ) -> None:
        self._extractor = extractor or FactExtractor()
        self._wordnet = wordnet or load()

    def score(self, candidate: Tokens, references: Sequence[Tokens]) -> ImageSpice:
        """Score one tokenised, lower-case caption against the references of its image."""
        return self.score_all([candidate], [references])[0]

    def score_all(
        self, candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]
    ) -> list[ImageSpice]:
        """Score many images at once, which parses faster than one by one."""
        if len(candidates) != len(references):
            raise DataError(
                f"{len(candidates)} captions and {len(references)} lists of references; give one "
                "list per caption"
            )
        if not all(references):
            raise DataError("an image without references cannot be scored; give at least one")
        captions = [*candidates, *(text for texts in references for text in texts)]
        facts = iter(self._extractor.facts(captions))
        graphs = [SceneGraph(self._wordnet, next(facts)) for _ in candidates]
        scores = []
        for graph, texts in zip(graphs, references, strict=True):
            # Merging is greedy: a fixed order makes the score free of the references' order.
            stated = sorted(next(facts) for _ in texts)
            union = SceneGraph(self._wordnet, (fact for some in stated for fact in some))
            scores.append(_compare(list(graph.tuples()), list(union.tuples())))
        return scores


def category_means(scores: Iterable[ImageSpice]) -> dict[str, float]:
    """Mean F1 of each category over the images whose references have a fact of it; NaN for none."""
    images = list(scores)
    means = {}
    for name in CATEGORIES:
        values = [s.categories[name].f1 for s in images if s.categories[name].reference]
        means[name] = sum(values) / len(values) if values else math.nan
    return means


def compute(captions: CaptionSet) -> MetricResult:
    """SPICE of a caption set, 0 to 1."""
    scores = _default().score_all(captions.candidate_tokens, captions.reference_tokens)
    return mean_result("SPICE", [image.all.f1 for image in scores])


def official_jars() -> Path | None:
    """The official scorer's folder inside pycocoevalcap, if Java and its 384 MB of CoreNLP files
    are there."""
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        spice = Path(folder) / "spice"
        if shutil.which("java") and all((spice / "lib" / jar).is_file() for jar in CORENLP_JARS):
            return spice
    return None


def compute_official(captions: CaptionSet) -> MetricResult:
    """SPICE by the official Java scorer, through pycocoevalcap.

    Raises MissingExtraError where Java, pycocoevalcap or the files of Stanford CoreNLP are absent;
    nothing is downloaded here.
    """
    if official_jars() is None:
        raise MissingExtraError(
            "the official SPICE scorer needs Java 8 to 14, the package pycocoevalcap and Stanford "
            'CoreNLP 3.6.0; install the first two and run python -c "from pycocoevalcap.spice '
            'import get_stanford_models as g; g.get_stanford_models()" (a download of 384 MB), or '
            "use the metric SPICE, which needs none of these"
        )
    ids = range(len(captions.ids))
    references = {i: [" ".join(tokens) for tokens in captions.reference_tokens[i]] for i in ids}
    candidates = {i: [" ".join(captions.candidate_tokens[i])] for i in ids}
    scorer = importlib.import_module("pycocoevalcap.spice.spice").Spice()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            _, scores = scorer.compute_score(references, candidates)
    except subprocess.CalledProcessError as error:
        raise DataError(
            f"the official SPICE scorer stopped with exit code {error.returncode}; it runs on Java "
            "8 to 14, later ones lack the JavaScript engine it writes its results with"
        ) from error
    return mean_result("SPICE", [float(image["All"]["f"]) for image in scores])


@cache
def _default() -> Spice:
    return Spice()


def _compare(candidate: list[ConceptTuple], reference: list[ConceptTuple]) -> ImageSpice:
    return ImageSpice(
        _count(candidate, reference),
        {
            name: _count(
                [fact for fact in candidate if _belongs(fact, name)],
                [fact for fact in reference if _belongs(fact, name)],
            )
            for name in CATEGORIES
        },
        tuple(tuple(map(str, fact)) for fact in candidate),
        tuple(tuple(map(str, fact)) for fact in reference),
    )


def _count(candidate: list[ConceptTuple], reference: list[ConceptTuple]) -> FactScore:
    matched = sum(any(_same(fact, stated) for stated in reference) for fact in candidate)
    return FactScore(matched, len(candidate), len(reference))


def _same(fact: ConceptTuple, stated: ConceptTuple) -> bool:
    return len(fact) == len(stated) and all(a.matches(b) for a, b in zip(fact, stated, strict=True))


def _belongs(fact: ConceptTuple, category: str) -> bool:
    if category in ("Object", "Attribute", "Relation"):
        return len(fact) == 1 + ("Object", "Attribute", "Relation").index(category)
    words = {"Color": COLORS, "Cardinality": NUMBERS, "Size": SIZES}[category]
    return len(fact) == 2 and str(fact[1]) in words
