"""The CUDA beam search equals the numpy specification and the C++ core, whatever the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from beam_drivers import SPECIAL
from device_searches import Device, Kernels, assert_equal_runs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_beam_equal import HOSTILE, VARIANTS, cases

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import NOTHING


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beams", [1, 2, 4, 7, 16])
@pytest.mark.parametrize(("batch", "vocab", "parts"), [(1, 2, 1), (3, 61, 2), (2, 131, 5)])
def test_random_logits(
    kernels: Kernels, beams: int, batch: int, vocab: int, parts: int, variant: dict[str, Any]
) -> None:
    rng = np.random.default_rng(beams * 1000 + vocab)
    options = DecodingOptions(beams=beams, max_new_tokens=6, num_return_sequences=beams, **variant)

    def logits(_: int) -> np.ndarray:
        made = rng.normal(size=(batch * beams, vocab)).astype(np.float32) * 3
        made[:, 0] += np.log(vocab)  # EOS really comes
        return made

    assert_equal_runs(kernels, logits, batch, vocab, options, parts=parts, extra=beams % 3)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("beams", [1, 3, 4])
@pytest.mark.parametrize(("vocab", "parts"), [(2, 1), (5, 1), (70, 1), (70, 4)])
def test_hostile_logits(kernels: Kernels, kind: str, beams: int, vocab: int, parts: int) -> None:
    for number, variant in enumerate(VARIANTS):
        rng = np.random.default_rng(number)
        options = DecodingOptions(
            beams=beams, max_new_tokens=5, num_return_sequences=beams, **variant
        )

        def logits(_: int, rng: np.random.Generator = rng, rows: int = 2 * beams) -> np.ndarray:
            made: np.ndarray = HOSTILE[kind](rng, (rows, vocab)).astype(np.float32)
            return made

        assert_equal_runs(kernels, logits, 2, vocab, options, parts=parts)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    case=cases(),
    parts=st.integers(1, 4),
    dtype=st.sampled_from(["float32", "float16", "bfloat16"]),
    ahead=st.integers(0, 9),
    extra=st.integers(0, 9),
)
def test_any_logits(
    kernels: Kernels, case: tuple[Any, ...], parts: int, dtype: str, ahead: int, extra: int
) -> None:
    batch, vocab, options, special, seed, few, size, positions = case
    rng = np.random.default_rng(seed)

    def logits(_: int) -> np.ndarray:
        made = rng.choice(np.array(few, np.float32), size)
        return made.reshape(batch * options.beams, vocab)

    assert_equal_runs(
        kernels,
        logits,
        batch,
        vocab,
        options,
        special,
        positions,
        dtype,
        parts=parts,
        ahead=ahead,
        extra=extra,
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_half_logits(kernels: Kernels, kind: str, dtype: str) -> None:
    for number, variant in enumerate(VARIANTS):
        rng = np.random.default_rng(number)
        options = DecodingOptions(beams=3, max_new_tokens=4, num_return_sequences=3, **variant)

        def logits(_: int, rng: np.random.Generator = rng) -> np.ndarray:
            made: np.ndarray = HOSTILE[kind](rng, (6, 70)).astype(np.float32)
            return made

        parts = 1 + 2 * (number % 2)
        assert_equal_runs(kernels, logits, 2, 70, options, dtype=dtype, parts=parts)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("vocab", [1021, 1023, 1024])
def test_rows_start_anywhere(kernels: Kernels, dtype: str, vocab: int) -> None:
    """Vector loads begin where memory allows it; no logit is lost or read twice."""
    options = DecodingOptions(beams=2, max_new_tokens=2, num_return_sequences=2)
    for ahead in range(9):
        rng = np.random.default_rng(ahead)

        def logits(_: int, rng: np.random.Generator = rng) -> np.ndarray:
            return rng.normal(size=(2, vocab)).astype(np.float32) * 4

        assert_equal_runs(
            kernels, logits, 1, vocab, options, dtype=dtype, ahead=ahead, extra=ahead % 2, parts=3
        )


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_different_logits_of_one_score(kernels: Kernels, parts: int, penalty: float) -> None:
    """Neighbouring floats round to the same score: then the lower token goes first, though its
    logit is smaller and it is no candidate by logit."""
    vocab, beams = 200, 3
    options = DecodingOptions(
        beams=beams, max_new_tokens=4, num_return_sequences=beams, repetition_penalty=penalty
    )
    rising = (np.float32(0.1) + np.arange(vocab) * np.float32(2**-26)).astype(np.float32)
    assert len(np.unique(rising)) > 100

    def logits(position: int) -> np.ndarray:
        return np.stack([np.roll(rising, 7 * row + position) for row in range(beams)])

    found = assert_equal_runs(kernels, logits, 1, vocab, options, parts=parts)
    first = np.argsort(-logits(0)[0], kind="stable")[:beams]
    assert found[0][0].tokens[0] not in first


@pytest.mark.parametrize("multiprocessors", [8, 132])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_real_vocabulary(kernels: Kernels, multiprocessors: int, dtype: str) -> None:
    rng = np.random.default_rng(multiprocessors)
    options = DecodingOptions(
        beams=4, max_new_tokens=3, num_return_sequences=4, repetition_penalty=1.2
    )

    def logits(_: int) -> np.ndarray:
        return rng.normal(size=(4, 50257)).astype(np.float32) * 2

    assert_equal_runs(
        kernels, logits, 1, 50257, options, dtype=dtype, multiprocessors=multiprocessors
    )


@pytest.mark.parametrize(("batch", "beams", "vocab"), [(64, 16, 40), (1, 16, 262144)])
def test_the_largest_sizes(kernels: Kernels, batch: int, beams: int, vocab: int) -> None:
    rng = np.random.default_rng(0)
    options = DecodingOptions(beams=beams, max_new_tokens=2, num_return_sequences=2)

    def logits(_: int) -> np.ndarray:
        return rng.standard_normal((batch * beams, vocab), np.float32)

    assert_equal_runs(kernels, logits, batch, vocab, options, multiprocessors=8)


def test_images_end_at_different_steps(kernels: Kernels) -> None:
    rng = np.random.default_rng(5)
    options = DecodingOptions(
        beams=3, max_new_tokens=7, num_return_sequences=3, early_stopping=True
    )
    special = SpecialTokens(bos=1, eos=2, pad=3)
    ends = [6, 2, 4]

    def logits(position: int) -> np.ndarray:
        made = rng.normal(size=(9, 30)).astype(np.float32)
        for image, end in enumerate(ends):
            made[3 * image : 3 * image + 3, 2] = 20.0 if position >= end - 1 else -20.0
        return made

    found = assert_equal_runs(kernels, logits, 3, 30, options, special)
    lengths = [max(len(h.tokens) for h in image) for image in found]
    assert lengths[1] < lengths[2] < lengths[0]


def test_the_order_of_blocks_does_not_matter(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels[0].architectures != ("emulated",):
        pytest.skip("a GPU chooses the order of blocks itself")
    monkeypatch.setenv("EDGECAP_EMULATED_REVERSE", "1")
    rng = np.random.default_rng(2)
    options = DecodingOptions(beams=4, max_new_tokens=4, repetition_penalty=1.5)

    def logits(_: int) -> np.ndarray:
        return rng.normal(size=(8, 700)).astype(np.float32)

    assert_equal_runs(kernels, logits, 2, 700, options, parts=5)


def test_after_the_end_nothing_changes_and_reset_starts_anew(kernels: Kernels) -> None:
    options = DecodingOptions(beams=2, max_new_tokens=3, num_return_sequences=2)
    device = Device(kernels, 1, 50, 5, options, SPECIAL)
    logits = np.random.default_rng(1).normal(size=(3, 2, 50)).astype(np.float32)
    try:
        assert device.search.finish() == [[device.search.finish()[0][0]] * 2]
        assert device.search.finish()[0][0].score == NOTHING
        assert [device.step(each, "float32") for each in logits] == [False, False, True]
        found = device.search.finish()
        size = (int(device.search.places.state_bytes),)
        assert device.search.places.control == 0, "the control block begins the state"
        before = device.read("control", size, np.uint8)
        assert device.step(logits[0], "float32")
        after = device.read("control", size, np.uint8)
        np.testing.assert_array_equal(after, before)
        device.search.reset()
        assert device.search.going()
        assert device.search.position == 0
        again = [device.step(each, "float32") for each in logits]
        assert again == [False, False, True]
        assert device.search.finish() == found
    finally:
        device.close()
