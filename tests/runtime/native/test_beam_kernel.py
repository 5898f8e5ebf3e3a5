"""The CUDA beam search equals the numpy specification and the C++ core, whatever the logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from device_searches import Kernels, assert_equal_runs
from test_beam_equal import HOSTILE, VARIANTS

from edgecap.runtime.decoding.options import DecodingOptions


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
