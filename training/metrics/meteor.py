"""METEOR 1.5 for English (Denkowski and Lavie, WMT 2014), without Java.

The words of a caption are aligned with those of a reference: equal words, equal stems, WordNet
synonyms, paraphrases. The alignment covers the most words in the fewest chunks; the score is a
weighted F-mean of precision and recall, less a penalty on fragmentation. The best reference
counts, and the score of a set is that of the summed statistics, as in pycocoevalcap.
"""

from __future__ import annotations

import functools
import importlib
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.training.metrics import meteor_files
from edgecap.training.metrics.base import CaptionSet, MetricResult
from edgecap.training.metrics.meteor_words import Lexicon, Sentence

# By name: type checkers see the source tree, where the built module does not lie.
_native: Any = importlib.import_module("edgecap._native")

# Tuned by the authors to rank English translations.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
WEIGHTS = (1.0, 0.6, 0.8, 0.6)
# Lengths and function words of both sides, matches of both sides by content or function word and
# matcher, chunks (none for a caption that is its reference).
_LENGTHS, _FUNCTION, _MATCHES, _CHUNKS = slice(0, 2), slice(2, 4), slice(4, 20), 20

Statistics = npt.NDArray[np.float64]
# first word and words in the reference, first word and words in the candidate, matcher
Match = tuple[int, int, int, int, int]
_START = operator.itemgetter(0)


class Meteor:
    """Scores captions; loading it takes seconds.

    Raises MissingExtraError where the files that its matchers need are not installed.
    """

    def __init__(self) -> None:
        files = meteor_files.load()
        self._lexicon, self._paraphrases = Lexicon(files), files.paraphrases

    def sentence(self, caption: str) -> Sentence:
        """A caption made ready, for use with any number of others."""
        return self._lexicon.sentence(caption)

    def statistics(self, candidate: Sentence, references: list[Sentence]) -> Statistics:
        """Counts against the reference with the best score, the first on a tie: float64 [21]."""
        rows = [self._count(candidate, reference) for reference in references]
        return np.array(max(rows, key=_score_one), np.float64)

    def _count(self, candidate: Sentence, reference: Sentence) -> list[int]:
        matches = self._matches(candidate, reference)
        matches.sort(key=_START)  # stable: within a word the matchers keep their order
        chosen = _native.align(
            len(reference.words), len(candidate.words), [(*m[:4], m[4] == EXACT) for m in matches]
        )
        counts = [0] * 16
        chunks, end, other_end = 0, -1, -1
        for index in chosen:
            start, length, other, other_length, matcher = matches[index]
            for place in range(other, other + other_length):
                counts[4 * candidate.function[place] + matcher] += 1
            for place in range(start, start + length):
                counts[8 + 4 * reference.function[place] + matcher] += 1
            chunks += start != end or other != other_end
            end, other_end = start + length, other + other_length
        lengths = [len(candidate.words), len(reference.words)]
        # A caption that is its reference adds no chunk to the sum of a set either.
        if chunks == 1 and [sum(counts[:8]), sum(counts[8:])] == lengths:
            chunks = 0
        return [*lengths, sum(candidate.function), sum(reference.function), *counts, chunks]

    def _matches(self, candidate: Sentence, reference: Sentence) -> list[Match]:
        words = candidate.words
        found: list[Match] = [
            (j, 1, i, 1, EXACT)
            for j, word in enumerate(reference.words)
            if word in words
            for i, other in enumerate(words)
            if other == word
        ]
        if words == reference.words:
            return found
        found += [
            (j, 1, i, 1, STEM)
            for j, stem in enumerate(reference.stems)
            if stem in candidate.stems
            for i, other in enumerate(candidate.stems)
            if other == stem and words[i] != reference.words[j]
        ]
        found += [
            (j, 1, i, 1, SYNONYM)
            for j, synsets in enumerate(reference.synsets)
            if synsets
            for i, others in enumerate(candidate.synsets)
            if not synsets.isdisjoint(others) and words[i] != reference.words[j]
        ]
        # The table is not symmetric: METEOR looks up the phrases of both sides.
        a, b = reference.phrases, candidate.phrases
        found += [(*match, PARAPHRASE) for match in self._paraphrases.match(a, b)]
        found += [(*m[2:], *m[:2], PARAPHRASE) for m in self._paraphrases.match(b, a)]
        return found


def score(statistics: Statistics) -> Statistics:
    """METEOR, 0 to 1, of statistics (or their sums) [..., 21]: float64 [...]."""
    lengths, function = statistics[..., _LENGTHS], statistics[..., _FUNCTION]
    chunks = statistics[..., _CHUNKS]
    # [..., side, content or function word, matcher]
    matches = statistics[..., _MATCHES].reshape(*statistics.shape[:-1], 2, 2, 4)
    covered = matches.sum(axis=(-1, -2))
    weights = np.array([DELTA, 1 - DELTA])
    weighted = (matches @ np.array(WEIGHTS)) @ weights
    with np.errstate(divide="ignore", invalid="ignore"):
        share = weighted / (DELTA * (lengths - function) + (1 - DELTA) * function)
        mean = 1 / ((1 - ALPHA) / share[..., 0] + ALPHA / share[..., 1])
        fragmentation = chunks / covered.mean(axis=-1)
        found = mean * (1 - GAMMA * fragmentation**BETA)
        return np.asarray(np.maximum(np.nan_to_num(found, nan=0.0), 0.0))


def compute(captions: CaptionSet) -> MetricResult:
    """METEOR of a caption set."""
    meteor = _shared()
    sentence = functools.lru_cache(maxsize=4096)(meteor.sentence)
    rows = np.stack(
        [
            meteor.statistics(
                sentence(_text(candidate)), [sentence(_text(reference)) for reference in references]
            )
            for candidate, references in zip(
                captions.candidate_tokens, captions.reference_tokens, strict=True
            )
        ]
    )
    return MetricResult(
        ("METEOR",), score(rows)[:, None], rows, lambda sums, _: score(sums)[..., None]
    )


@functools.cache
def _shared() -> Meteor:
    return Meteor()


def _text(tokens: list[str]) -> str:
    # pycocoevalcap cuts these out, since they part the sentences it sends to Java.
    return " ".join(tokens).replace("|||", "").replace("  ", " ")


def _score_one(counts: list[int]) -> float:
    """``score`` of one row, each operation in METEOR's order: it decides near ties of references
    as METEOR does, and is faster."""
    length, reference_length, function, reference_function = counts[:4]
    covered = sum(counts[_MATCHES])
    if not covered:
        return 0.0
    precision = _weigh(counts[4:12]) / (DELTA * (length - function) + (1.0 - DELTA) * function)
    recall = _weigh(counts[12:20]) / (
        DELTA * (reference_length - reference_function) + (1.0 - DELTA) * reference_function
    )
    mean = 1.0 / ((1.0 - ALPHA) / precision + ALPHA / recall)
    fragmentation = counts[_CHUNKS] / (covered / 2)
    return max(0.0, mean * (1.0 - float(GAMMA * fragmentation**BETA)))


def _weigh(matches: list[int]) -> float:
    total = 0.0
    for count, weight in zip(matches[:4], WEIGHTS, strict=True):
        total += count * weight * DELTA
    for count, weight in zip(matches[4:], WEIGHTS, strict=True):
        total += count * weight * (1.0 - DELTA)
    return total
