"""What Schuster et al. (VL 2015) do to a dependency graph before they read facts off it:
"a lot of dogs" is about dogs, and "his" is the man's."""

from __future__ import annotations

from collections import deque

from edgecap.training.metrics.scene_graph.dependencies import DependencyGraph, Edge

# "a couple of dogs": the dogs count, and the rest says how many.
AFTER_ARTICLE = frozenset({
    "array", "assortment", "bit", "bunch", "couple", "dozen", "handful", "heap", "kind", "lot",
    "multitude", "number", "pair", "plethora", "range", "series", "slew", "sort", "ton", "type",
    "variety",
})  # fmt: skip
ALONE = frozenset({
    "dozens", "heaps", "hundreds", "loads", "lots", "many", "millions", "pairs", "plenty",
    "several", "tens", "thousands", "tons",
})  # fmt: skip
# "some of the dogs", "one of them".
BEFORE_THE = frozenset({
    "all", "both", "everyone", "neither", "nobody", "none", "some", "one", "two", "three",
    "four", "five", "six", "seven", "eight", "nine", "ten", "hundred", "thousand", "million",
})  # fmt: skip

SINGULAR_PRONOUNS = frozenset({
    "i", "me", "my", "mine", "myself", "he", "him", "his", "himself", "she", "her", "hers",
    "herself", "it", "its", "itself", "yourself", "one", "oneself",
})  # fmt: skip

QUANTITY = "det:qmod"


def promote_quantified(graph: DependencyGraph) -> None:
    """Put the counted noun in the place of its quantifier, which becomes a ``QUANTITY`` of it."""
    for quantifier, word in enumerate(graph.words):
        of = quantifier + 1
        if of >= len(graph.words) or graph.words[of].text != "of":
            continue
        counted = next(
            (i for i in graph.out(quantifier, "nmod:of") if graph.words[i].tag[:2] in ("NN", "PR")),
            None,
        )
        if counted is None:
            continue
        parts = [quantifier]
        articles = [i for i in graph.out(quantifier, "det") if graph.words[i].text in ("a", "an")]
        definite = any(graph.words[i].text == "the" for i in graph.out(counted, "det"))
        if word.text in AFTER_ARTICLE and articles:
            parts += articles
            parts += [i for i in graph.out(quantifier, "amod") if i < quantifier]
        elif word.text in ALONE or (
            word.text in BEFORE_THE and (definite or graph.words[counted].tag.startswith("PR"))
        ):
            parts += [i for i in graph.out(quantifier) if i < quantifier]
        else:
            continue
        _promote(graph, quantifier, counted, sorted(set(parts)))


def _promote(graph: DependencyGraph, quantifier: int, counted: int, parts: list[int]) -> None:
    edges = []
    for edge in graph.edges:
        if edge.governor == quantifier and edge.dependent == counted:
            continue
        if edge.dependent == quantifier and edge.governor != counted:
            edges.append(Edge(edge.governor, edge.relation, counted))
        elif edge.dependent not in parts:
            edges.append(edge)
    graph.edges = list(dict.fromkeys(edges))
    if graph.root == quantifier:
        graph.root = counted
    # The first word stands for all, as in the official scorer: "a" for "a lot of".
    graph.add(counted, QUANTITY, parts[0])


def resolve_pronouns(graph: DependencyGraph) -> None:
    """Give the relations of a pronoun to the first noun before it, the topmost one in the graph;
    a singular pronoun takes singular nouns only."""
    for i, word in enumerate(graph.words):
        if i == 0 or not word.tag.startswith("PRP"):
            continue
        noun = _first_noun(graph, singular=word.text in SINGULAR_PRONOUNS)
        if noun is None or noun >= i:
            continue
        moved = [
            Edge(
                noun if edge.governor == i else edge.governor,
                edge.relation,
                noun if edge.dependent == i else edge.dependent,
            )
            for edge in graph.edges
        ]
        graph.edges = [e for e in dict.fromkeys(moved) if e.governor != e.dependent]


def _first_noun(graph: DependencyGraph, singular: bool) -> int | None:
    queue, seen = deque([graph.root]), {graph.root}
    while queue:
        current = queue.popleft()
        word = graph.words[current]
        if word.is_noun and not (singular and word.is_plural):
            return current
        children = [i for i in sorted(graph.out(current)) if i not in seen]
        seen.update(children)
        queue.extend(children)
    return None
