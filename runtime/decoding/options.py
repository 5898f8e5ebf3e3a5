"""Decoding options: one frozen object, validated once, shared by every implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecap.runtime.errors import OptionsError

MAX_BEAMS = 16

EarlyStopping = bool | Literal["never"]


@dataclass(frozen=True)
class DecodingOptions:
    """How beam search runs. Names and meaning are those of Hugging Face ``generate``.

    score of a hypothesis = sum of its log-probabilities / (generated length ** length_penalty),
    where the generated length counts EOS and not the prompt.
    """

    beams: int = 4  # K; 1 is greedy search
    max_new_tokens: int = 20  # EOS counted
    min_new_tokens: int = 0  # EOS is suppressed while fewer tokens than this are generated
    length_penalty: float = 1.0  # > 0 prefers longer, < 0 shorter captions
    early_stopping: EarlyStopping = False  # False: HF's bound; True: at K finished; "never": exact
    no_repeat_ngram_size: int = 0  # 0 is off
    # Keskar et al. 2019: a token said before has its log-probability multiplied by this; as in HF,
    # greedy search divides its logit instead where that is above 0.
    repetition_penalty: float = 1.0
    num_return_sequences: int = 1
    suppress_tokens: tuple[int, ...] = ()  # ids that never appear

    def __post_init__(self) -> None:
        _whole("beams", self.beams, 1, MAX_BEAMS)
        _whole("max_new_tokens", self.max_new_tokens, 1, 4096)
        _whole("min_new_tokens", self.min_new_tokens, 0, self.max_new_tokens)
        _whole("no_repeat_ngram_size", self.no_repeat_ngram_size, 0, 4096)
        _whole("num_return_sequences", self.num_return_sequences, 1, self.beams)
        _real("length_penalty", self.length_penalty, -10.0, 10.0)
        _real("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.early_stopping not in (True, False, "never"):
            raise OptionsError(
                f"early_stopping is {self.early_stopping!r}; give True, False or 'never'"
            )
        for token in self.suppress_tokens:
            _whole("a token of suppress_tokens", token, 0, 2**31 - 1)


@dataclass(frozen=True)
class SpecialTokens:
    """Ids with a meaning for decoding. ``bos`` starts every row, ``eos`` ends a hypothesis."""

    bos: int
    eos: int
    pad: int


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise OptionsError(f"{name} is {value!r}; give a whole number from {low} to {high}")


def _real(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise OptionsError(f"{name} is {value!r}; give a number from {low:g} to {high:g}")
