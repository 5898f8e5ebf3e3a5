"""Scene graphs of one image: things, what they are like, how they relate, synonyms as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from edgecap.training.metrics.wordnet import WordNet

# (thing,), (thing, attribute) or (thing, relation, other thing), as lemmas.
Fact: TypeAlias = tuple[str, ...]


@dataclass(eq=False)
class Concept:
    """Words that are taken as one, with the WordNet synsets of all of them."""

    words: set[str]
    synsets: set[int]

    def same(self, other: Concept) -> bool:
        return self.words == other.words and self.synsets == other.synsets

    def matches(self, other: Concept) -> bool:
        """Whether the two share a synset or a word."""
        return not (self.synsets.isdisjoint(other.synsets) and self.words.isdisjoint(other.words))

    def similarity(self, other: Concept) -> float:
        """1 for a shared word, else the Jaccard index of the synsets, 0 to 1."""
        if not self.words.isdisjoint(other.words):
            return 1.0
        common = len(self.synsets & other.synsets)
        return common / len(self.synsets | other.synsets) if common else 0.0

    def absorb(self, other: Concept) -> None:
        self.words |= other.words
        self.synsets |= other.synsets

    def __str__(self) -> str:
        return "/".join(sorted(self.words))


ConceptTuple: TypeAlias = tuple[Concept, ...]


@dataclass(eq=False)
class Node:
    """A thing in the image."""

    concept: Concept
    attributes: list[Concept] = field(default_factory=list)


class SceneGraph:
    """Facts of one or more captions of one image, merged: a thing that shares a synset with a
    known thing is that thing; so are attributes of one thing and relations of one pair."""

    def __init__(self, wordnet: WordNet, facts: Iterable[Fact] = ()) -> None:
        self._wordnet = wordnet
        self.nodes: list[Node] = []
        self.relations: list[tuple[Node, Concept, Node]] = []
        for fact in facts:
            self.add(fact)

    def add(self, fact: Fact) -> None:
        """Take in a thing, an attribute of a thing, or a relation of two."""
        node = self._node(fact[0])
        if len(fact) == 2:
            _merge(node.attributes, self._concept(fact[1]))
        elif len(fact) == 3:
            self._relate(node, fact[1], self._node(fact[2]))

    def tuples(self) -> Iterator[ConceptTuple]:
        """Things, then their attributes, then the relations."""
        for node in self.nodes:
            yield (node.concept,)
            for attribute in node.attributes:
                yield (node.concept, attribute)
        for source, relation, target in self.relations:
            yield (source.concept, relation, target.concept)

    def _concept(self, words: str) -> Concept:
        return Concept({words}, set(self._wordnet.of(words)))

    def _node(self, word: str) -> Node:
        concept = self._concept(word)
        best, best_similarity = None, 0.0
        for node in self.nodes:
            if node.concept.same(concept):
                return node
            similarity = node.concept.similarity(concept)
            if similarity > best_similarity:
                best, best_similarity = node, similarity
        if best is not None:
            best.concept.absorb(concept)
            return best
        self.nodes.append(Node(concept))
        return self.nodes[-1]

    def _relate(self, source: Node, relation: str, target: Node) -> None:
        known = [r for s, r, t in self.relations if s is source and t is target]
        before = len(known)
        _merge(known, self._concept(relation.removeprefix("be ")))
        if len(known) > before:
            self.relations.append((source, known[-1], target))


def _merge(concepts: list[Concept], new: Concept) -> None:
    if any(known.same(new) for known in concepts):
        return
    for known in concepts:
        if known.matches(new):
            known.absorb(new)
            return
    concepts.append(new)
