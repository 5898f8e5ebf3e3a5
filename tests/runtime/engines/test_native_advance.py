"""Steps of model and search in one call, where the last product sums the logits' tiles, say to the
bit what single steps under a search over plain logits say, and what the specification says."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.decoding.native import NativeSearch
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch

LIMIT, HIDDEN = 6, 12
PRECISIONS = ("fp32", "bf16", "int8")
LEVELS = {
    "plain": (-2.0, -1.0, 0.0, 0.5, 3.0),
    "all equal": (0.0,),
    "hostile": (np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 0.0, -0.0, 1.0, 1e-45),
    "all -inf": (-np.inf,),
    "all NaN": (np.nan,),
    "all +inf": (np.inf,),
    "far above": (900.0, 905.0, 905.5),
    "far below": (-900.0, -905.0, -1e30),
    "some far": (-900.0, 650.0, 0.0),
}


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    vocab = draw(st.sampled_from([2, 3, 40, 63, 64, 65, 127, 128, 200, 515]))
    beams = draw(st.integers(1, 16))
    tokens = st.integers(0, vocab - 1)
    return {
        "vocab": vocab,
        "batch": draw(st.integers(1, 3)),
        "threads": draw(st.integers(1, 3)),
        "precision": draw(st.sampled_from(PRECISIONS)),
        "levels": draw(st.sampled_from(sorted(LEVELS))),
        "spread": draw(st.sampled_from([0.0, 0.1, 1.0])),
        "seed": draw(st.integers(0, 2**16)),
        "special": SpecialTokens(bos=draw(tokens), eos=draw(tokens), pad=draw(tokens)),
        "options": DecodingOptions(
            beams=beams,
            max_new_tokens=LIMIT,
            min_new_tokens=draw(st.integers(0, LIMIT)),
            no_repeat_ngram_size=draw(st.sampled_from([0, 0, 0, 1, 2, 3])),
            repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.0, 0.7, 1.3])),
            length_penalty=draw(st.sampled_from([-1.0, 0.0, 1.0, 2.0])),
            early_stopping=draw(st.sampled_from([False, True, "never"])),
            suppress_tokens=tuple(draw(st.lists(st.integers(0, vocab + 2), max_size=4))),
            num_return_sequences=beams,
        ),
    }


def decoder(case: dict[str, Any]) -> Any:
    """A GRU whose logits are one of few levels for each word, and what the state adds to some."""
    rng = np.random.default_rng(case["seed"])
    vocab = case["vocab"]

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    head = normal(vocab, HIDDEN) * np.float32(case["spread"])
    head[rng.random(vocab) < 0.5] = 0.0  # ties between rows, too
    spec = {
        "lstm": False,
        "vocab": vocab,
        "positions": LIMIT,
        "width": HIDDEN,
        "hidden": HIDDEN,
        "words": normal(vocab, HIDDEN),
        "inputs": (normal(3 * HIDDEN, HIDDEN), normal(3 * HIDDEN)),
        "recurrent": (normal(3 * HIDDEN, HIDDEN), normal(3 * HIDDEN)),
        "head": (head, rng.choice(np.array(LEVELS[case["levels"]], np.float32), vocab)),
        "places": 0,
    }
    native = importlib.import_module("edgecap._native")
    return native.StepDecoder(
        spec,
        precision=case["precision"],
        head_precision=case["precision"],
        threads=case["threads"],
        kernel="",
    )


def make_run(made: Any, case: dict[str, Any]) -> Any:
    batch = case["batch"]
    run = importlib.import_module("edgecap._native").StepRun(made, batch, case["options"].beams)
    rng = np.random.default_rng(case["seed"])
    run.set_state(rng.normal(size=(batch, HIDDEN)).astype(np.float32))
    return run


@settings(max_examples=250, deadline=None)
@given(cases())
def test_one_call_and_single_steps_have_the_same_bits(case: dict[str, Any]) -> None:
    options, made = case["options"], decoder(case)
    size = case["batch"], case["vocab"], LIMIT, options, case["special"]
    driven, stepped, specified = NativeSearch(*size), NativeSearch(*size), ReferenceSearch(*size)
    together, single = make_run(made, case), make_run(made, case)
    logits = np.zeros((case["batch"] * options.beams, case["vocab"]), np.float32)
    done = False
    while not done:
        buffers = driven.tokens, driven.parents, driven.ancestry
        done, _ = together.advance(driven.core, *buffers, 1)
        single.step(stepped.tokens, stepped.parents, stepped.position, stepped.ancestry, logits)
        assert stepped.step(logits) == done
        assert specified.step(logits) == done
        for name in ("tokens", "parents", "ancestry"):
            np.testing.assert_array_equal(getattr(driven, name), getattr(stepped, name))
            np.testing.assert_array_equal(getattr(driven, name), getattr(specified, name))
        assert driven.finish() == stepped.finish()  # scores and log-probabilities to the bit
    for ours, theirs in zip(driven.finish(), specified.finish(), strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        for one, other in zip(ours, theirs, strict=True):
            assert one.score == pytest.approx(other.score, rel=1e-5, abs=1e-5)
            assert one.logprobs == pytest.approx(other.logprobs, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_steps_in_one_call_say_the_same(threads: int) -> None:
    case: dict[str, Any] = {
        "vocab": 1000,
        "batch": 2,
        "threads": threads,
        "precision": "int8",
        "levels": "plain",
        "spread": 1.0,
        "seed": 5,
        "special": SpecialTokens(bos=1, eos=2, pad=0),
        "options": DecodingOptions(beams=4, max_new_tokens=LIMIT, num_return_sequences=4),
    }
    found = []
    for at_once in (1, LIMIT):
        run = make_run(decoder(case), case)
        search = NativeSearch(2, 1000, LIMIT, case["options"], case["special"])
        buffers = search.tokens, search.parents, search.ancestry
        while not run.advance(search.core, *buffers, at_once)[0]:
            pass
        found.append((search.finish(), search.ancestry.copy()))
    assert found[0][0] == found[1][0]
    np.testing.assert_array_equal(found[0][1], found[1][1])
