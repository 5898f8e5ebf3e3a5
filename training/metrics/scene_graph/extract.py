"""Facts of captions, each caption parsed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgecap.training.metrics.scene_graph.graph import Fact
from edgecap.training.metrics.scene_graph.parser import parse
from edgecap.training.metrics.scene_graph.rules import sentence_facts

CACHE_LIMIT = 200_000


class FactExtractor:
    """Tokenised captions -> facts; equal captions are parsed once while they stay in the cache of
    ``CACHE_LIMIT`` captions."""

    def __init__(self) -> None:
        self._cache: dict[tuple[str, ...], tuple[Fact, ...]] = {}

    def facts(self, captions: Iterable[Sequence[str]]) -> list[tuple[Fact, ...]]:
        """Facts of each caption, in order; none for an empty caption."""
        keys = [tuple(tokens) for tokens in captions]
        new = list(dict.fromkeys(key for key in keys if key not in self._cache))
        fresh = {
            key: tuple(fact for sentence in sentences for fact in sentence_facts(sentence))
            for key, sentences in zip(new, parse(new) if new else (), strict=True)
        }
        found = [fresh[key] if key in fresh else self._cache[key] for key in keys]
        if len(self._cache) + len(fresh) > CACHE_LIMIT:
            self._cache.clear()
        self._cache.update(fresh)
        return found
