"""What a captioner returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timings:
    """Wall time by stage, in milliseconds. ``step`` (decoder graph) is a part of ``decode``."""

    load: float = 0.0  # file or array -> RGB pixels
    preprocess: float = 0.0  # resize to the model's input
    encode: float = 0.0
    decode: float = 0.0  # all steps, beam search included
    step: float = 0.0  # time inside the decoder graph alone
    steps: int = 0  # number of decoder steps run
    total: float = 0.0


@dataclass(frozen=True)
class Alternative:
    """Another finished hypothesis of the same picture (``num_return_sequences`` > 1)."""

    text: str
    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True)
class Caption:
    """One sentence about one picture.

    ``tokens`` are ids without BOS, EOS included where it was generated. ``score`` is the
    length-normalised log-probability. ``confidence`` (0 to 1) is the calibrated probability that
    the sentence fits the picture; ``sure`` is False under the model's floor. ``truncated``: the
    search was stopped early and this is the best it had found.
    """

    text: str
    tokens: tuple[int, ...]
    score: float
    confidence: float
    sure: bool
    timings: Timings
    alternatives: tuple[Alternative, ...] = ()
    truncated: bool = False

    def __str__(self) -> str:
        return self.text if self.sure else f"{self.text} (not sure)"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready dictionary with every field."""
        from dataclasses import asdict

        return asdict(self)
