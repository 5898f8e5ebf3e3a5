"""The C++ beam search equals the numpy specification, on easy and on hostile logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from beam_drivers import IMPLEMENTATIONS, SPECIAL, assert_equal_runs
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecap.runtime.decoding.native import NativeSearch
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch
from edgecap.runtime.decoding.search import NOTHING, make_search
from edgecap.runtime.errors import OptionsError

VARIANTS: list[dict[str, Any]] = [
    {},
    {"length_penalty": 0.0, "early_stopping": True},
    {"length_penalty": 2.0, "early_stopping": "never"},
    {"length_penalty": -1.0, "early_stopping": "never", "min_new_tokens": 3},
    {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 0.7, "no_repeat_ngram_size": 1, "suppress_tokens": (2, 3, 10**6)},
]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beams", [1, 2, 4, 7, 16])
@pytest.mark.parametrize(
    ("batch", "vocab"), [(1, 2), (2, 3), (3, 61), (1, 64), (2, 131), (1, 3001)]
)
def test_random_logits(beams: int, batch: int, vocab: int, variant: dict[str, Any]) -> None:
    rng = np.random.default_rng(beams * 1000 + vocab)
    options = DecodingOptions(beams=beams, max_new_tokens=8, num_return_sequences=beams, **variant)

    def logits(_: int) -> np.ndarray:
        made = rng.normal(size=(batch * beams, vocab)).astype(np.float32) * 3
        made[:, 0] += np.log(vocab)  # EOS really comes
        return made

    assert_equal_runs(logits, batch, vocab, options)


HOSTILE = {
    "all equal": lambda rng, shape: np.zeros(shape, np.float32),
    "few levels": lambda rng, shape: rng.integers(-2, 2, shape).astype(np.float32),
    "same row permuted": lambda rng, shape: np.stack(
        [rng.permutation(np.linspace(-4, 4, shape[1])) for _ in range(shape[0])]
    ).astype(np.float32),
    "all NaN": lambda rng, shape: np.full(shape, np.nan, np.float32),
    "all -inf": lambda rng, shape: np.full(shape, -np.inf, np.float32),
    "all +inf": lambda rng, shape: np.full(shape, np.inf, np.float32),
    "one token possible": lambda rng, shape: (
        np.where(np.arange(shape[1]) == 1, 1.0, -np.inf) + np.zeros((shape[0], 1))
    ),
    "only EOS": lambda rng, shape: (
        np.where(np.arange(shape[1]) == 0, 90.0, -90.0) + np.zeros((shape[0], 1))
    ),
    "mixed": lambda rng, shape: rng.choice(
        np.array([np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 0.0, -0.0, 1.0, 1e-45]), shape
    ),
    "some rows dead": lambda rng, shape: np.where(
        rng.random((shape[0], 1)) < 0.5, -np.inf, rng.normal(size=shape)
    ),
    "ascending": lambda rng, shape: np.arange(shape[1]) + np.zeros((shape[0], 1)),
    "far above": lambda rng, shape: rng.integers(-3, 3, shape) + 5000.0,
    "far below": lambda rng, shape: rng.integers(-3, 3, shape) - 5000.0,
    "far apart": lambda rng, shape: rng.choice(np.array([-800.0, 590.0, 601.0, 0.0]), shape),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("beams", [1, 3, 4])
@pytest.mark.parametrize("vocab", [2, 5, 70, 300])
def test_hostile_logits(kind: str, beams: int, vocab: int) -> None:
    for number, variant in enumerate(VARIANTS):
        rng = np.random.default_rng(number)
        options = DecodingOptions(
            beams=beams, max_new_tokens=6, num_return_sequences=beams, **variant
        )

        def logits(_: int, rng: np.random.Generator = rng, rows: int = 2 * beams) -> np.ndarray:
            made: np.ndarray = HOSTILE[kind](rng, (rows, vocab)).astype(np.float32)
            return made

        assert_equal_runs(logits, 2, vocab, options)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ...]:
    beams = draw(st.integers(1, 6))
    limit = draw(st.integers(1, 6))
    vocab = draw(st.integers(2, 12))
    options = DecodingOptions(
        beams=beams,
        max_new_tokens=limit,
        min_new_tokens=draw(st.integers(0, limit)),
        length_penalty=draw(st.sampled_from([-2.0, -0.5, 0.0, 0.6, 1.0, 2.0])),
        early_stopping=draw(st.sampled_from([False, True, "never"])),
        no_repeat_ngram_size=draw(st.integers(0, 4)),
        repetition_penalty=draw(st.sampled_from([0.5, 1.0, 1.3, 4.0])),
        num_return_sequences=draw(st.integers(1, beams)),
        suppress_tokens=tuple(draw(st.lists(st.integers(0, vocab + 2), max_size=2))),
    )
    special = SpecialTokens(
        bos=draw(st.integers(0, vocab + 1)),
        eos=draw(st.integers(0, vocab - 1)),
        pad=draw(st.integers(0, vocab - 1)),
    )
    level = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.5, -7.0, -np.inf, np.nan, np.inf])
    value = draw(st.sampled_from([level, st.floats(width=32), st.floats(-20, 20, width=32)]))
    batch = draw(st.integers(1, 3))
    size = batch * beams * vocab
    seed = draw(st.integers(0, 2**32 - 1))
    few = draw(st.lists(value, min_size=1, max_size=40))
    positions = draw(st.integers(1, 8))
    return batch, vocab, options, special, seed, few, size, positions


@settings(max_examples=300, deadline=None)
@given(cases())
def test_any_logits(case: tuple[Any, ...]) -> None:
    batch, vocab, options, special, seed, few, size, positions = case
    rng = np.random.default_rng(seed)

    def logits(_: int) -> np.ndarray:
        made = rng.choice(np.array(few, np.float32), size)
        return made.reshape(batch * options.beams, vocab)

    assert_equal_runs(logits, batch, vocab, options, special, positions)


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
def test_ties_go_to_the_lower_index(make: Any) -> None:
    search = make(1, 6, 4, DecodingOptions(beams=2, max_new_tokens=4), SpecialTokens(5, 5, 5))
    search.step(np.zeros((2, 6), np.float32))
    assert search.tokens.tolist() == [0, 1]
    assert search.parents.tolist() == [0, 0]
    search.step(np.zeros((2, 6), np.float32))
    assert search.tokens.tolist() == [0, 1]
    assert search.parents.tolist() == [0, 0]


@settings(max_examples=100, deadline=None)
@given(
    vocab=st.integers(2, 2000),
    scale=st.sampled_from([0.01, 1.0, 5.0, 80.0]),
    offset=st.sampled_from([-3000.0, -20.0, 0.0, 0.1, 20.0, 700.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_permuted_rows_tie(vocab: int, scale: float, offset: float, seed: int) -> None:
    """Two beams of one score, whose rows differ in order alone, come to the very same scores."""
    rng = np.random.default_rng(seed)
    row = (rng.normal(size=vocab) * scale + offset).astype(np.float32)
    row[0] = np.nextafter(row.max(), np.float32(np.inf))  # the largest stands alone
    first, second = np.full((2, 2, vocab + 1), -np.inf, np.float32)
    first[:, :2] = 0.0
    second[:, :vocab] = row, rng.permutation(row)  # the last token, which ends, never comes
    options = DecodingOptions(beams=2, max_new_tokens=2, num_return_sequences=2)
    for make in IMPLEMENTATIONS:
        search = make(1, vocab + 1, 2, options, SpecialTokens(bos=1, eos=vocab, pad=0))
        search.step(first)
        search.step(second)
        [best, other] = search.finish()[0]
        if row[0] - np.sort(row)[-2] > 1e-3:  # else the next may come to the same score
            assert [best.tokens[0], other.tokens[0]] == [0, 1]
        assert best.score == other.score


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
@pytest.mark.parametrize("beams", [1, 3])
def test_no_possible_token_gives_an_empty_hypothesis(make: Any, beams: int) -> None:
    search = make(1, 9, 4, DecodingOptions(beams=beams, max_new_tokens=4), SPECIAL)
    while not search.step(np.full((beams, 9), -np.inf, np.float32)):
        pass
    [[only]] = search.finish()
    assert (only.tokens, only.score, only.logprobs) == ((), NOTHING, ())


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
def test_a_done_picture_rests_while_others_go_on(make: Any) -> None:
    rng = np.random.default_rng(0)
    options = DecodingOptions(beams=2, max_new_tokens=6, early_stopping=True)
    search = make(2, 12, 6, options, SpecialTokens(bos=1, eos=2, pad=3))
    found = None
    for step in range(6):
        logits = rng.normal(size=(4, 12)).astype(np.float32)
        logits[:2, 2] = 20.0  # the first picture ends in two steps
        logits[2:, 2] = -20.0
        done = search.step(logits)
        assert done == (step == 5)
        if step >= 1:
            assert search.tokens[:2].tolist() == [3, 3]
            assert search.parents[:2].tolist() == [0, 1]
            found = found or search.finish()[0]
            assert search.finish()[0] == found
    before = [search.tokens.copy(), search.ancestry.copy(), search.finish()]
    assert search.step(np.zeros((4, 12), np.float32))
    np.testing.assert_array_equal(search.tokens, before[0])
    np.testing.assert_array_equal(search.ancestry, before[1])
    assert search.finish() == before[2]


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
def test_ancestry_is_the_path_of_parents(make: Any) -> None:
    beams, limit, positions, batch, vocab = 5, 9, 12, 2, 40
    rng = np.random.default_rng(7)
    search = make(
        batch, vocab, positions, DecodingOptions(beams=beams, max_new_tokens=limit), SPECIAL
    )
    tokens, parents, ancestry = search.tokens, search.parents, search.ancestry
    assert not ancestry.any()
    history: list[list[int]] = []
    crossed = False
    done = False
    while not done:
        logits = rng.normal(size=(batch * beams, vocab)).astype(np.float32)
        logits[:, SPECIAL.eos] = -9.0
        done = search.step(logits)
        history.append(parents.tolist())
        crossed |= parents.tolist() != list(range(batch * beams))
        for row in range(batch * beams):
            slots, at = set(), row
            for step in range(len(history) - 1, -1, -1):
                at = history[step][at]
                assert at // beams == row // beams
                slots.add(step * beams + at % beams)
            assert set(np.flatnonzero(ancestry[row]).tolist()) == slots
    assert crossed
    assert len(history) == limit
    assert tokens is search.tokens  # bound memory stays
    assert parents is search.parents
    assert ancestry is search.ancestry


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
def test_stopped_early_gives_the_best_so_far(make: Any) -> None:
    rng = np.random.default_rng(3)
    options = DecodingOptions(beams=3, max_new_tokens=10, num_return_sequences=3)
    search = make(1, 20, 10, options, SPECIAL)
    assert search.finish() == [[search.finish()[0][0]] * 3]
    assert search.finish()[0][0].tokens == ()
    for _ in range(4):
        logits = rng.normal(size=(3, 20)).astype(np.float32)
        logits[:, SPECIAL.eos] = -9.0
        assert not search.step(logits)
    [found] = search.finish()
    assert [len(h.tokens) for h in found] == [4, 4, 4]
    assert found[0].score >= found[1].score >= found[2].score
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(sum(hypothesis.logprobs) / 4, abs=1e-5)


@pytest.mark.parametrize("make", IMPLEMENTATIONS)
def test_wrong_logits_are_refused(make: Any) -> None:
    search = make(1, 20, 5, DecodingOptions(beams=3, max_new_tokens=5), SPECIAL)
    with pytest.raises(ValueError, match=r"\[3, 20\]"):
        search.step(np.zeros((3, 21), np.float32))
    with pytest.raises((ValueError, TypeError)):
        search.step(np.zeros((3, 20), np.float64))
    assert search.position == 0


def test_native_takes_strided_rows_and_read_only_logits() -> None:
    wide = np.random.default_rng(1).normal(size=(3, 2, 50)).astype(np.float32)
    wide.setflags(write=False)
    options = DecodingOptions(beams=3, max_new_tokens=1, num_return_sequences=3)
    a = NativeSearch(1, 50, 1, options, SPECIAL)
    b = NativeSearch(1, 50, 1, options, SPECIAL)
    assert a.step(wide[:, -1, :])
    assert b.step(np.ascontiguousarray(wide[:, -1, :]))
    assert a.finish() == b.finish()


def test_make_search_picks_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    options = DecodingOptions(beams=2, max_new_tokens=3)
    monkeypatch.delenv("EDGECAP_BEAM", raising=False)
    assert isinstance(make_search(1, 9, 3, options, SPECIAL), NativeSearch)
    monkeypatch.setenv("EDGECAP_BEAM", "reference")
    assert isinstance(make_search(1, 9, 3, options, SPECIAL), ReferenceSearch)
    monkeypatch.setenv("EDGECAP_BEAM", "abacus")
    with pytest.raises(OptionsError, match="native or reference"):
        make_search(1, 9, 3, options, SPECIAL)


@pytest.mark.parametrize(
    ("batch", "vocab", "positions", "special"),
    [
        (0, 9, 3, SPECIAL),
        (1, 1, 3, SPECIAL),
        (1, 9, 0, SPECIAL),
        (1, 9, 3, SpecialTokens(1, 9, 0)),
        (1, 9, 3, SpecialTokens(-1, 2, 0)),
    ],
)
def test_make_search_refuses(
    batch: int, vocab: int, positions: int, special: SpecialTokens
) -> None:
    with pytest.raises(OptionsError, match="give"):
        make_search(batch, vocab, positions, DecodingOptions(), special)


def test_without_the_native_module_one_warning(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, warnings; sys.modules['edgecap._native'] = None\n"
        "from edgecap.runtime.decoding.search import make_search\n"
        "from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    warnings.simplefilter('always')\n"
        "    made = [make_search(1, 9, 3, DecodingOptions(), SpecialTokens(1, 0, 0)) "
        "for _ in range(3)]\n"
        "assert [type(m).__name__ for m in made] == ['ReferenceSearch'] * 3\n"
        "[one] = seen\n"
        "assert 'native module' in str(one.message)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=60)
