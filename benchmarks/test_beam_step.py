"""Time of one beam search step, numpy specification against C++, on the same logits.

Both are checked to agree before either is timed. Run with
``pytest benchmarks/test_beam_step.py --benchmark-columns=median,iqr,rounds``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecap.runtime.decoding.native import NativeSearch
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch

STEPS = 20
SPECIAL = SpecialTokens(bos=1, eos=2, pad=0)
IMPLEMENTATIONS = {"reference": ReferenceSearch, "native": NativeSearch}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "processors": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
}


def _decode(make: Any, logits: np.ndarray, options: DecodingOptions) -> Any:
    search = make(1, logits.shape[2], STEPS, options, SPECIAL)
    for one in logits:
        search.step(one)
    return search


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("beams", "vocab"), [(1, 3000), (4, 3000), (8, 3000), (4, 32000)])
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_step(benchmark: Any, name: str, beams: int, vocab: int, variant: str) -> None:
    benchmark.group = f"one step, K={beams} V={vocab} {variant}"
    rng = np.random.default_rng(0)
    logits = (rng.normal(size=(STEPS, beams, vocab)) * 3).astype(np.float32)
    options = DecodingOptions(
        beams=beams, max_new_tokens=STEPS, min_new_tokens=STEPS, **VARIANTS[variant]
    )
    reference, native = (_decode(make, logits, options) for make in IMPLEMENTATIONS.values())
    np.testing.assert_array_equal(native.tokens, reference.tokens)
    np.testing.assert_array_equal(native.ancestry, reference.ancestry)
    assert native.finish()[0][0].tokens == reference.finish()[0][0].tokens

    # Every timed call is a fresh step: a new search is made when one is used up.
    state: dict[str, Any] = {"search": None, "position": STEPS}

    def prepare() -> tuple[tuple[Any, ...], dict[str, Any]]:
        if state["position"] == STEPS:
            make = IMPLEMENTATIONS[name]
            state.update(search=make(1, vocab, STEPS, options, SPECIAL), position=0)
        position = state["position"]
        state["position"] += 1
        return (state["search"].step, logits[position]), {}

    def step(run: Any, one: np.ndarray) -> None:
        run(one)

    benchmark.pedantic(step, setup=prepare, rounds=5 * STEPS, warmup_rounds=STEPS)
