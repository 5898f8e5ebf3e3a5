"""Runs searches on the device kernels beside the numpy specification and the C++ core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from beam_drivers import SPECIAL, assert_same_hypotheses

from edgecap.runtime.decoding.native import NativeSearch
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import ReferenceSearch
from edgecap.runtime.decoding.search import Hypothesis
from edgecap.runtime.engines.cuda_library import CudaBeamSearch, CudaLibrary

Floats = npt.NDArray[np.float32]
Kernels = tuple[CudaLibrary, Any]


def bfloat16_bits(values: Floats) -> npt.NDArray[np.uint16]:
    """Rounded to nearest even; NaN stays one."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def stored(logits: Floats, dtype: str) -> tuple[np.ndarray, Floats]:
    """Logits as the device gets them, and the float32 they mean."""
    with np.errstate(over="ignore"):
        if dtype == "float16":
            half = logits.astype(np.float16)
            return half, half.astype(np.float32)
        if dtype == "bfloat16":
            bits = bfloat16_bits(logits)
            return bits, (bits.astype(np.uint32) << 16).view(np.float32)
    return logits, logits


class Device:
    """A search on the device with buffers around it."""

    def __init__(
        self, kernels: Kernels, batch: int, vocab: int, positions: int, *rest: Any, **split: Any
    ) -> None:
        self.library, self.cuda = kernels
        self.ahead = split.pop("ahead", 0)  # elements before the first row: rows lie anywhere
        self.extra = split.pop("extra", 0)  # elements from row to row beyond V
        self.search = CudaBeamSearch(
            self.library, self.cuda, batch, vocab, positions, *rest, ancestry=True, **split
        )
        self.rows, self.vocab = batch * self.search.config.beams, vocab
        self.beams, self.positions = self.search.config.beams, positions
        self.size = self.rows * (vocab + self.extra) + self.ahead
        self.logits = self.cuda.allocate(4 * self.size)

    def step(self, logits: np.ndarray, dtype: str) -> bool:
        wide = np.zeros(self.size, logits.dtype)
        shape = (self.rows, self.vocab + self.extra)
        wide[self.ahead :].reshape(shape)[:, : self.vocab] = logits
        self.cuda.upload(self.logits, wide)
        address = self.logits + self.ahead * logits.itemsize
        self.search.step(address, dtype, self.vocab + self.extra)
        return not self.search.going()

    def read(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        array = np.empty(shape, dtype)
        self.cuda.download(array, self.search.address(name))
        self.cuda.synchronize()
        return array

    def assert_state(self, reference: ReferenceSearch) -> None:
        rows, t, beams = (self.rows,), reference.position, self.beams
        for name, dtype in (("tokens", np.int32), ("tokens64", np.int64)):
            np.testing.assert_array_equal(self.read(name, rows, dtype), reference.tokens)
        for name, dtype in (("parents", np.int32), ("parents64", np.int64)):
            np.testing.assert_array_equal(self.read(name, rows, dtype), reference.parents)
        width = beams * self.positions
        ancestry = self.read("ancestry", (self.rows, width), np.uint8)
        np.testing.assert_array_equal(ancestry, reference.ancestry)
        origin = self.read("origin", (self.rows, self.positions), np.uint8)[:, :t]
        marked = reference.ancestry[:, : t * beams].reshape(self.rows, t, beams)
        np.testing.assert_array_equal(origin, marked.argmax(axis=2))
        assert (marked.sum(axis=2) == 1).all()
        assert self.read("position64", (1,), np.int64)[0] == t
        assert self.search.position == t

    def close(self) -> None:
        self.cuda.free(self.logits)
        self.search.close()


def assert_equal_runs(
    kernels: Kernels,
    next_logits: Callable[[int], Floats],
    batch: int,
    vocab: int,
    options: DecodingOptions,
    special: SpecialTokens = SPECIAL,
    positions: int | None = None,
    dtype: str = "float32",
    **split: Any,
) -> list[list[Hypothesis]]:
    """Device kernels, numpy and C++ on the same logits; all they say agrees after every step."""
    positions = positions or options.max_new_tokens
    device = Device(kernels, batch, vocab, positions, options, special, **split)
    reference = ReferenceSearch(batch, vocab, positions, options, special)
    native = NativeSearch(batch, vocab, positions, options, special)
    done = not device.search.going()
    try:
        while not done:
            device.assert_state(reference)
            given, meant = stored(next_logits(reference.position), dtype)
            done = reference.step(meant)
            native.step(meant)
            assert device.step(given, dtype) == done
            found = device.search.finish()
            assert_same_hypotheses(found, reference.finish())
            assert_same_hypotheses(found, native.finish())
        device.assert_state(reference)
        return device.search.finish()
    finally:
        device.close()
