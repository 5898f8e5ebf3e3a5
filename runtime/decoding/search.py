"""Beam search as engines and captioners see it, whichever implementation runs."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.errors import OptionsError

NOTHING = -1.0e9  # the score of a hypothesis that does not exist


@dataclass(frozen=True)
class Hypothesis:
    """One sentence that beam search found.

    ``tokens`` are without BOS, EOS included where it was generated. ``score`` is the sum of
    ``logprobs`` / (length ** length_penalty). ``logprobs`` has one natural log-probability per
    token, after the processors (a repetition penalty scales it). Where fewer hypotheses exist than
    were asked for, the rest have no tokens and the score ``NOTHING``.
    """

    tokens: tuple[int, ...]
    score: float
    logprobs: tuple[float, ...]


class BeamSearch(Protocol):
    """One decode of B pictures with K beams each; R = B * K rows, those of a picture together.

    The three arrays are allocated once and updated in place, so that engines may bind them.

    tokens : int64 [R], next decoder input of each row; BOS before the first step
    parents : int64 [R], the global row each row continues; identity before the first step
    ancestry : bool [R, K * T], cache slots t * K + k that are the row's own past. After step t a
        row with parent p has ancestry[p] and slot t * K + p % K
    position : number of steps taken, and so the position of the next one

    A picture that is done goes on with pad tokens and identity parents, and its hypotheses no
    longer change whatever its logits are.
    """

    @property
    def tokens(self) -> npt.NDArray[np.int64]: ...

    @property
    def parents(self) -> npt.NDArray[np.int64]: ...

    @property
    def ancestry(self) -> npt.NDArray[np.bool_]: ...

    @property
    def position(self) -> int: ...

    def step(self, logits: npt.NDArray[np.float32]) -> bool:
        """Take one step; True when every picture is done, after which calls change nothing.

        logits : float32 [R, V] of step ``position``, last axis contiguous; not changed. NaN counts
            as -inf, +inf as the largest float32; a row of -inf offers no token.
        """

    def finish(self) -> list[list[Hypothesis]]:
        """B lists of ``num_return_sequences`` hypotheses, best first.

        Called before the search is done (a deadline), it gives finished hypotheses first, then
        the best unfinished ones.
        """


MakeSearch = Callable[[int, int, int, DecodingOptions, SpecialTokens], BeamSearch]


def make_search(
    batch: int,
    vocab_size: int,
    max_positions: int,
    options: DecodingOptions,
    special: SpecialTokens,
) -> BeamSearch:
    """Set up a search over ``batch`` pictures (B), ``vocab_size`` tokens (V) and T positions.

    Decoding ends after min(options.max_new_tokens, max_positions) tokens. The C++ implementation
    runs unless the environment has EDGECAP_BEAM=reference.
    """
    if batch < 1 or vocab_size < 2 or max_positions < 1:
        raise OptionsError(
            f"batch {batch}, vocabulary {vocab_size}, positions {max_positions}; "
            "give at least 1, 2 and 1"
        )
    if not 0 <= special.eos < vocab_size or special.bos < 0 or special.pad < 0:
        raise OptionsError(
            f"special tokens are bos {special.bos}, eos {special.eos}, pad {special.pad}; "
            f"give eos from 0 to {vocab_size - 1}, bos and pad not negative"
        )
    make = _implementation(os.environ.get("EDGECAP_BEAM", "native"))
    return make(batch, vocab_size, max_positions, options, special)


@functools.cache
def _implementation(name: str) -> MakeSearch:
    from edgecap.runtime.decoding.reference import ReferenceSearch

    if name not in ("native", "reference"):
        raise OptionsError(f"EDGECAP_BEAM is {name!r}; set it to native or reference, or unset it")
    if name == "native":
        try:
            from edgecap.runtime.decoding.native import NativeSearch

            return cast(MakeSearch, NativeSearch)
        except ImportError as error:
            warnings.warn(
                f"the native module does not load ({error}); decoding runs in numpy, slower. "
                "Reinstall edgecap to build it",
                RuntimeWarning,
                stacklevel=3,
            )
    return cast(MakeSearch, ReferenceSearch)
