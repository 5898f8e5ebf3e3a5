"""Facts of a caption: the rules of SPICE (Anderson et al., ECCV 2016), which build on those of
Schuster et al. (VL 2015).

Unlike theirs, every noun is a thing, a plural stays one thing with its number as an attribute, and
the first noun of a compound is an attribute of the last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgecap.training.metrics.scene_graph.dependencies import DependencyGraph, dependency_graph
from edgecap.training.metrics.scene_graph.enhance import (
    QUANTITY,
    promote_quantified,
    resolve_pronouns,
)
from edgecap.training.metrics.scene_graph.graph import Fact
from edgecap.training.metrics.scene_graph.parser import Sentence


def sentence_facts(sentence: Sentence) -> list[Fact]:
    """Things, attributes and relations that one parsed sentence states, repeats included."""
    graph = dependency_graph(sentence)
    promote_quantified(graph)
    resolve_pronouns(graph)
    return [fact for rule in RULES for fact in rule(graph)]


def _subject_verb_object(graph: DependencyGraph) -> Iterator[Fact]:
    """A man is riding a horse; a man is sitting on a horse."""
    for verb, subject in _subjects(graph):
        if not graph.out(verb, "cop") and graph.words[subject].is_noun:
            yield from _triples(graph, subject, verb)


def _participle(graph: DependencyGraph) -> Iterator[Fact]:
    """A cat sitting in a chair."""
    for edge in graph.edges:
        if edge.relation == "acl" and graph.words[edge.dependent].is_verb:
            yield from _triples(graph, edge.governor, edge.dependent)


def _subject_predicate(graph: DependencyGraph) -> Iterator[Fact]:
    """A woman is smiling; the man is a rider; a woman is in the house."""
    for head, subject in _subjects(graph):
        if not graph.words[subject].is_noun:
            continue
        if not graph.out(head, "cop") and any(True for _ in _arguments(graph, head)):
            continue
        predicate = graph.words[head].lemma
        if head in graph.prepositions:
            yield (graph.words[subject].lemma, graph.prepositions[head], predicate)
        elif predicate != "be":
            yield (graph.words[subject].lemma, predicate)


def _adjective(graph: DependencyGraph) -> Iterator[Fact]:
    """A smart woman; the woman is smart."""
    for edge in graph.edges:
        thing, quality = graph.words[edge.governor], graph.words[edge.dependent]
        if edge.relation == "amod":
            yield (thing.lemma, quality.lemma)
        elif edge.relation == "nsubj" and thing.tag.startswith("J"):
            yield (quality.lemma, thing.lemma)


def _preposition(graph: DependencyGraph) -> Iterator[Fact]:
    """A woman in the house."""
    for edge in graph.edges:
        noun, other = graph.words[edge.governor], graph.words[edge.dependent]
        kind, _, name = edge.relation.partition(":")
        if kind == "nmod" and name not in ("poss", "agent") and noun.is_noun:
            yield (noun.lemma, name, other.lemma)


def _possession(graph: DependencyGraph) -> Iterator[Fact]:
    """The man's watch."""
    for edge in graph.edges:
        noun, owner = graph.words[edge.governor], graph.words[edge.dependent]
        if edge.relation == "nmod:poss" and noun.is_noun and owner.is_noun:
            yield (owner.lemma, "have", noun.lemma)


def _agent(graph: DependencyGraph) -> Iterator[Fact]:
    """A horse is ridden by a man."""
    for verb in range(len(graph.words)):
        for agent in graph.out(verb, "nmod:agent"):
            for thing in graph.out(verb, "nsubjpass"):
                if graph.words[agent].is_noun and graph.words[thing].is_noun:
                    lemmas = graph.words[agent].lemma, graph.words[thing].lemma
                    yield (lemmas[0], _verb(graph, verb), lemmas[1])


def _number(graph: DependencyGraph) -> Iterator[Fact]:
    """Two dogs; a lot of dogs."""
    for i, word in enumerate(graph.words):
        if not word.is_plural:
            continue
        numbers = graph.out(i, "nummod")
        if numbers:
            if numbers[0] < i:  # not "room numbers 5"
                yield (word.lemma, graph.words[numbers[0]].lemma)
        else:
            for quantity in graph.out(i, QUANTITY)[:1]:
                yield (word.lemma, graph.words[quantity].lemma)


def _compound(graph: DependencyGraph) -> Iterator[Fact]:
    """A fire truck: a truck of the kind fire."""
    for head, modifier in _compounds(graph):
        yield (graph.words[head].lemma, graph.words[modifier].lemma)


def _noun(graph: DependencyGraph) -> Iterator[Fact]:
    parts = {i for pair in _compounds(graph) for i in pair}
    for i, word in enumerate(graph.words):
        if word.is_noun and i not in parts:
            yield (word.lemma,)


RULES: tuple[Callable[[DependencyGraph], Iterator[Fact]], ...] = (
    _subject_verb_object,
    _participle,
    _subject_predicate,
    _adjective,
    _preposition,
    _possession,
    _agent,
    _number,
    _compound,
    _noun,
)


def _subjects(graph: DependencyGraph) -> Iterator[tuple[int, int]]:
    return ((e.governor, e.dependent) for e in graph.edges if e.relation == "nsubj")


def _compounds(graph: DependencyGraph) -> Iterator[tuple[int, int]]:
    for edge in graph.edges:
        pair = edge.governor, edge.dependent
        if edge.relation == "compound" and all(graph.words[i].is_noun for i in pair):
            yield pair


def _arguments(graph: DependencyGraph, verb: int) -> Iterator[tuple[str, int]]:
    """Objects of a verb and of its prepositions that are nouns, with the relation."""
    for edge in graph.edges:
        is_argument = edge.relation in ("iobj", "dobj") or edge.relation.startswith("nmod:")
        if edge.governor == verb and is_argument and graph.words[edge.dependent].is_noun:
            yield edge.relation, edge.dependent


def _triples(graph: DependencyGraph, subject: int, verb: int) -> Iterator[Fact]:
    for relation, thing in _arguments(graph, verb):
        predicate = _verb(graph, verb)
        kind, _, name = relation.partition(":")
        if kind == "nmod" and name not in ("poss", "agent"):
            predicate = f"{predicate} {name}"
        yield (graph.words[subject].lemma, predicate, graph.words[thing].lemma)


def _verb(graph: DependencyGraph, verb: int) -> str:
    """A verb with its particle: "pick up"."""
    lemma = graph.words[verb].lemma
    for particle in graph.out(verb, "compound:prt")[:1]:
        return f"{lemma} {graph.words[particle].text}"
    return lemma
