"""The decoding loop: engine step, beam search step, until every picture is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol, runtime_checkable

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import BeamSearch, Hypothesis, MakeSearch, make_search
from edgecap.runtime.engines.base import Encoded, Engine


@dataclass(frozen=True)
class Decoded:
    """What decoding B pictures gave.

    ``hypotheses`` are B lists, best first. ``decode_ms`` is wall time from the set-up of the caches
    to the last hypothesis, ``step_ms`` the part of it inside the decoder graph. ``truncated`` says
    that ``should_stop`` ended the search before it was done.
    """

    hypotheses: list[list[Hypothesis]]
    step_ms: float
    decode_ms: float
    steps: int
    truncated: bool = False


@runtime_checkable
class DecodesCaptions(Protocol):
    """What an engine may have besides its steps: the whole search in one call, on its device."""

    def decode(
        self,
        encoded: Encoded,
        options: DecodingOptions,
        special: SpecialTokens,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> Decoded:
        """The meaning of ``generate``; ``options.max_new_tokens`` is at most T.

        should_stop : asked again and again meanwhile, perhaps by another thread
        """


@runtime_checkable
class RunsSearches(Protocol):
    """What a step runner may have besides ``step``: several steps of model and search in a call."""

    def run(self, search: BeamSearch, steps: int) -> tuple[bool, float] | None:
        """At most ``steps`` steps: whether the search is done, and the seconds inside the decoder.
        None where the runner cannot drive this search; nothing is changed then."""


def generate(
    engine: Engine,
    encoded: Encoded,
    options: DecodingOptions,
    special: SpecialTokens,
    *,
    should_stop: Callable[[], bool] | None = None,
    make: MakeSearch = make_search,
) -> Decoded:
    """Decode ``encoded`` with beam search.

    ``should_stop`` is asked after every step, so at least one token is decoded; once it answers
    True the best hypotheses so far are returned. An engine that decodes whole captions asks it
    meanwhile. ``make`` sets up the search over single steps. ``max_new_tokens``
    (and with it ``min_new_tokens``) is clipped to what the model has positions for.
    """
    start = perf_counter()
    limit = engine.max_positions
    if options.max_new_tokens > limit:
        options = replace(
            options, max_new_tokens=limit, min_new_tokens=min(options.min_new_tokens, limit)
        )
    if isinstance(engine, DecodesCaptions):
        return engine.decode(encoded, options, special, should_stop=should_stop)
    search = make(encoded.batch, engine.vocab_size, limit, options, special)
    runner = engine.begin(encoded, options.beams)
    tokens, parents, ancestry = search.tokens, search.parents, search.ancestry
    inside = 0.0
    position = 0
    truncated = False
    driver = runner if isinstance(runner, RunsSearches) else None
    at_once = limit if should_stop is None else 1
    while True:
        found = driver.run(search, at_once) if driver is not None else None
        if found is not None:
            done, seconds = found
            inside += seconds
            position = search.position
        else:
            before = perf_counter()
            logits = runner.step(tokens, position, parents, ancestry)
            inside += perf_counter() - before
            position += 1
            done = search.step(logits)
        if done:
            break
        if should_stop is not None and should_stop():
            truncated = True
            break
    hypotheses = search.finish()
    return Decoded(
        hypotheses=hypotheses,
        step_ms=inside * 1e3,
        decode_ms=(perf_counter() - start) * 1e3,
        steps=position,
        truncated=truncated,
    )
