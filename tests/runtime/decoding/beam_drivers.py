"""Helpers that run searches side by side."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.native import NativeSearch
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch
from edgecap.runtime.decoding.search import BeamSearch, Hypothesis

Floats = npt.NDArray[np.float32]
SPECIAL = SpecialTokens(bos=1, eos=0, pad=0)
IMPLEMENTATIONS = [ReferenceSearch, NativeSearch]


def assert_same_hypotheses(got: list[list[Hypothesis]], want: list[list[Hypothesis]]) -> None:
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a.score, b.score, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(a.logprobs, b.logprobs, rtol=1e-5, atol=1e-5)


def assert_equal_runs(
    next_logits: Callable[[int], Floats],
    batch: int,
    vocab: int,
    options: DecodingOptions,
    special: SpecialTokens = SPECIAL,
    positions: int | None = None,
) -> list[list[Hypothesis]]:
    """Run both implementations on the same logits; every array must agree after every step."""
    positions = positions or options.max_new_tokens
    searches: list[BeamSearch] = [
        make(batch, vocab, positions, options, special) for make in IMPLEMENTATIONS
    ]
    reference, native = searches
    done = False
    while not done:
        for a, b in (
            (native.tokens, reference.tokens),
            (native.parents, reference.parents),
            (native.ancestry, reference.ancestry),
        ):
            np.testing.assert_array_equal(a, b)
        assert native.position == reference.position
        logits = next_logits(reference.position)
        kept = logits.copy()
        done = reference.step(logits)
        assert native.step(logits) == done
        np.testing.assert_array_equal(logits, kept)
        assert_same_hypotheses(native.finish(), reference.finish())
    return reference.finish()
