"""Beam search in C++ (runtime/native/beam_cpu.cpp); equal to ``ReferenceSearch`` and faster."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import Hypothesis

# By name: type checkers see the source tree, where the built module does not lie.
_native: Any = importlib.import_module("edgecap._native")


class NativeSearch:
    """See ``BeamSearch``. One call per step; nothing is allocated after construction."""

    def __init__(
        self,
        batch: int,
        vocab_size: int,
        max_positions: int,
        options: DecodingOptions,
        special: SpecialTokens,
    ) -> None:
        rows, beams = batch * options.beams, options.beams
        self.tokens: npt.NDArray[np.int64] = np.empty(rows, np.int64)
        self.parents: npt.NDArray[np.int64] = np.empty(rows, np.int64)
        self.ancestry: npt.NDArray[np.bool_] = np.empty((rows, beams * max_positions), np.bool_)
        self._batch, self._count = batch, options.num_return_sequences
        stopping = options.early_stopping
        self._core = _native.BeamSearch(
            self.tokens,
            self.parents,
            self.ancestry,
            batch=batch,
            beams=beams,
            vocab=vocab_size,
            positions=max_positions,
            max_new_tokens=min(options.max_new_tokens, max_positions),
            min_new_tokens=options.min_new_tokens,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            repetition_penalty=options.repetition_penalty,
            length_penalty=options.length_penalty,
            early_stopping=2 if stopping == "never" else int(stopping),
            bos=special.bos,
            eos=special.eos,
            pad=special.pad,
            suppress_tokens=list(options.suppress_tokens),
        )

    @property
    def position(self) -> int:
        return int(self._core.position)

    @property
    def core(self) -> Any:
        """The C++ search itself, for native engines that step model and search in one call."""
        return self._core.core()

    def step(self, logits: npt.NDArray[np.float32]) -> bool:
        return bool(self._core.step(logits))

    def finish(self) -> list[list[Hypothesis]]:
        return [
            [Hypothesis(*found) for found in self._core.best(image, self._count)]
            for image in range(self._batch)
        ]
