"""From a dependency tree to the graph that the scene-graph rules read.

The graph follows the collapsed, conjunction-processed English Universal Dependencies (de Marneffe
et al., LREC 2014): prepositions become relations such as "nmod:on top of", the predicate of "is"
heads its clause, a relative pronoun stands for its noun, and both nouns of "a cat and a dog" share
their relations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from edgecap.training.metrics.scene_graph.parser import Sentence

# Prepositions of several words; "on the top of" is none.
LONG_PREPOSITIONS = frozenset({
    "by means of", "in accordance with", "in addition to", "in case of", "in front of",
    "in lieu of", "in place of", "in spite of", "on account of", "on behalf of", "on top of",
    "with regard to", "with respect to", "across from", "ahead of", "along with", "alongside of",
    "apart from", "aside from", "because of", "close by", "close to", "due to", "except for",
    "far from", "inside of", "instead of", "near to", "next to", "off of", "out of", "outside of",
    "such as", "thanks to", "together with",
})  # fmt: skip

# spaCy's relation -> that of the graph, where the rules use it.
RELATIONS = {
    "nsubj": "nsubj", "nsubjpass": "nsubjpass", "dobj": "dobj", "dative": "iobj", "amod": "amod",
    "compound": "compound", "nummod": "nummod", "det": "det", "poss": "nmod:poss", "acl": "acl",
    "relcl": "acl:relcl", "prt": "compound:prt", "cop": "cop",
}  # fmt: skip

SUBJECTS = ("nsubj", "nsubjpass")
PREPOSITIONS = ("prep", "agent", "dative")
PREDICATES = ("acomp", "attr", "oprd")
RELATIVE_TAGS = ("WDT", "WP")


class Edge(NamedTuple):
    """``dependent`` is a ``relation`` of ``governor``; both are indices of words."""

    governor: int
    relation: str
    dependent: int


@dataclass
class DependencyGraph:
    """words : the sentence
    edges : in the order of their discovery, none twice
    root : index of the word at the top
    prepositions : object -> the preposition before it, for predicates such as "is on the table"
    """

    words: Sentence
    root: int
    edges: list[Edge] = field(default_factory=list)
    prepositions: dict[int, str] = field(default_factory=dict)

    def add(self, governor: int, relation: str, dependent: int) -> None:
        edge = Edge(governor, relation, dependent)
        if governor != dependent and edge not in self.edges:
            self.edges.append(edge)

    def out(self, governor: int, *relations: str) -> list[int]:
        """Dependents of a word by these relations, or by any."""
        return [
            e.dependent
            for e in self.edges
            if e.governor == governor and (not relations or e.relation in relations)
        ]

    def into(self, dependent: int) -> list[Edge]:
        return [edge for edge in self.edges if edge.dependent == dependent]


class _Tree:
    """A sentence whose heads and relations may still change."""

    def __init__(self, words: Sentence) -> None:
        self.words = words
        self.heads = [word.head for word in words]
        self.relations = [word.relation for word in words]
        self.prepositions: dict[int, str] = {}
        # "top" in "on top of the wall": part of a preposition, so it governs nothing.
        self.swallowed: set[int] = set()

    def children(self, head: int, *relations: str) -> list[int]:
        return [
            i
            for i, (h, r) in enumerate(zip(self.heads, self.relations, strict=True))
            if h == head and i != head and (not relations or r in relations)
        ]


class _Phrase(NamedTuple):
    """The parts of "on top of the wall": the preposition, its head word and its object."""

    preposition: str
    head: int
    object: int


def dependency_graph(sentence: Sentence) -> DependencyGraph:
    """Build the graph of one sentence."""
    tree = _Tree(sentence)
    for i, word in enumerate(sentence):
        if word.lemma == "be" and tree.relations[i] not in ("aux", "auxpass"):
            _promote_predicate(tree, i)
        elif tree.relations[i] == "npadvmod" and word.is_noun:
            _compound(tree, i)
    root = next(i for i, head in enumerate(tree.heads) if head == i)
    graph = DependencyGraph(sentence, root, prepositions=tree.prepositions)
    for i in range(len(sentence)):
        relation = RELATIONS.get(tree.relations[i])
        # "to" of "gives it to the dog" is a dative too, and no object.
        if relation is not None and (relation != "iobj" or sentence[i].is_noun):
            graph.add(tree.heads[i], relation, i)
    phrases = [(i, phrase) for i in range(len(sentence)) for phrase in _phrases(tree, i)]
    for i, phrase in phrases:
        if i not in tree.swallowed:
            agent = tree.relations[phrase.head] == "agent"
            graph.add(i, "nmod:agent" if agent else f"nmod:{phrase.preposition}", phrase.object)
    _resolve_relatives(graph)
    _share_conjuncts(tree, graph)
    return graph


def _promote_predicate(tree: _Tree, be: int) -> None:
    """Make "tall", "rider" or "house" the head of "the man is tall / a rider / in the house"."""
    subjects = tree.children(be, *SUBJECTS)
    predicates = tree.children(be, *PREDICATES)
    if tree.children(be, "expl"):
        for thing in predicates[:1]:  # "there is a dog"
            tree.relations[thing] = "nsubj"
        return
    if not subjects:
        return
    phrase = next(_phrases(tree, be), None)
    case = -1
    if phrase is not None and (not predicates or phrase.head == predicates[0]):
        predicate, case = phrase.object, phrase.head  # "in the house", "next to the house"
        tree.prepositions[predicate] = phrase.preposition
    elif predicates:
        predicate = predicates[0]
    else:
        return
    for child in tree.children(be):
        tree.heads[child] = predicate
    tree.heads[predicate] = predicate if tree.heads[be] == be else tree.heads[be]
    tree.relations[predicate] = tree.relations[be]
    tree.heads[be], tree.relations[be] = predicate, "cop"
    if case >= 0:
        tree.heads[case], tree.relations[case] = predicate, "case"


def _compound(tree: _Tree, noun: int) -> None:
    """Read "snow covered slope" as "snow" and "covered" both modifying "slope"."""
    participle = tree.heads[noun]
    if tree.relations[participle] == "amod" and tree.words[participle].is_verb:
        tree.heads[noun], tree.relations[noun] = tree.heads[participle], "compound"


def _phrases(tree: _Tree, governor: int) -> Iterator[_Phrase]:
    """Prepositional phrases of a word, "next to" included."""
    for i in tree.children(governor):
        word = tree.words[i]
        if tree.relations[i] in PREPOSITIONS and not word.is_noun:
            yield from _objects(tree, i, i, word.text)
        elif tree.relations[i] in ("advmod", "acomp"):
            for inner in tree.children(i, "prep"):
                name = f"{word.text} {tree.words[inner].text}"
                if name in LONG_PREPOSITIONS:
                    yield from _objects(tree, inner, i, name)


def _objects(tree: _Tree, preposition: int, head: int, name: str) -> Iterator[_Phrase]:
    for thing in tree.children(preposition, "pobj"):
        dependents = tree.children(thing)
        if len(dependents) == 1:  # "on top of", without an article
            inner = dependents[0]
            long = f"{name} {tree.words[thing].text} {tree.words[inner].text}"
            if long in LONG_PREPOSITIONS:
                tree.swallowed.add(thing)
                yield from _objects(tree, inner, head, long)
                continue
        yield _Phrase(name, head, thing)
    for inner in tree.children(preposition, "prep"):
        both = f"{name} {tree.words[inner].text}"
        yield from _objects(
            tree, inner, head, both if both in LONG_PREPOSITIONS else tree.words[inner].text
        )


def _resolve_relatives(graph: DependencyGraph) -> None:
    """Read "a cat that sits" as the cat sitting."""
    for noun, _, verb in [edge for edge in graph.edges if edge.relation == "acl:relcl"]:
        for edge in [edge for edge in graph.edges if edge.governor == verb]:
            if graph.words[edge.dependent].tag in RELATIVE_TAGS:
                graph.edges.remove(edge)
                graph.add(verb, edge.relation, noun)


def _share_conjuncts(tree: _Tree, graph: DependencyGraph) -> None:
    for i, relation in enumerate(tree.relations):
        if relation != "conj" or tree.heads[i] == i:
            continue
        first = tree.heads[i]
        while tree.relations[first] == "conj" and tree.heads[first] != first:
            first = tree.heads[first]
        for governor, shared, _ in graph.into(first):
            graph.add(governor, shared, i)
        # A verb shares its subject with another verb, not with a stray noun.
        if tree.words[i].tag[0] == tree.words[first].tag[0] and not graph.out(i, *SUBJECTS):
            for subject in graph.out(first, *SUBJECTS):
                graph.add(i, _subject_relation(tree, i), subject)
        graph.edges.append(Edge(first, "conj", i))


def _subject_relation(tree: _Tree, verb: int) -> str:
    passive = tree.words[verb].tag == "VBN" and bool(tree.children(verb, "auxpass"))
    return "nsubjpass" if passive else "nsubj"
