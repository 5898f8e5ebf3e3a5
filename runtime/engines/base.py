"""The contract between decoding and whatever runs the graphs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Encoded:
    """What the encoder graph made of B pictures; constant while their captions are decoded.

    memory : name -> array [B, ...] in the engine's own dtype; of an encoder on a GPU perhaps a
        ``DeviceArray``, of which ``numpy.asarray`` gives a copy on the host
    carry : name -> array [B, ...], the decoder's first recurrent state; empty without one
    features : float32 [B, F], unit length, for change gates; None when the graph has no such output
    novelty : float32 [B], how far a picture lies from the training photographs (0 typical);
        None when the graph has no such output
    """

    batch: int
    memory: dict[str, Any]
    carry: dict[str, np.ndarray]
    features: npt.NDArray[np.float32] | None
    novelty: npt.NDArray[np.float32] | None

    @classmethod
    def of(cls, batch: int, outputs: Mapping[str, Any]) -> Encoded:
        """The outputs of an encoder graph by what their names say."""
        return cls(
            batch=batch,
            memory={name: a for name, a in outputs.items() if name.startswith("memory.")},
            carry={name: a for name, a in outputs.items() if name.startswith("carry.")},
            features=outputs.get("features"),
            novelty=outputs.get("novelty"),
        )


class StepRunner(Protocol):
    """Runs decoder steps for R = B * K rows; owns the caches of one decode."""

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """Run step ``position``.

        tokens : int64 [R], the last token of each row (BOS at position 0)
        parents : int64 [R], which row of the last step each row continues (global row index)
        ancestry : bool [R, K * T], the cache slots t * K + k that are this row's own past

        Returns logits, float32 [R, V], valid until the next call. Writes the step's K/V rows into
        slots position * K + k of the caches.
        """


class Engine(Protocol):
    """Runs one model's encoder and decoder graphs."""

    image_size: int  # S: pictures come in as uint8 [B, S, S, 3] RGB
    vocab_size: int  # V
    max_positions: int  # T: the longest caption in tokens, EOS counted

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        """Run the encoder on uint8 [B, S, S, 3] RGB pixels."""

    def begin(self, encoded: Encoded, beams: int) -> StepRunner:
        """Set up caches for one decode of ``encoded`` with K = ``beams``."""


@runtime_checkable
class ScoresSentences(Protocol):
    """What an engine may have besides its steps: what follows each start of a given sentence."""

    def sentence_logits(self, encoded: Encoded, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Logits float32 [N, V] after each of N ``tokens`` (BOS first); ``encoded`` is of one
        picture. The decoder's own arithmetic, whatever else decodes meanwhile."""


Runner = TypeVar("Runner")


class RunnerCache(Generic[Runner]):
    """The runners of the (B, K) that were used last, at most ``MOST`` of them."""

    MOST = 4

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[int, int], Runner] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, batch: int, beams: int, make: Callable[[], Runner]) -> Runner:
        """The runner of this size, made where there is none; the oldest is let go for it."""
        key = (batch, beams)
        runner = self._kept.pop(key, None)
        if runner is None:
            if len(self._kept) >= self.MOST:
                self._kept.popitem(last=False)
            runner = make()
        self._kept[key] = runner
        return runner
