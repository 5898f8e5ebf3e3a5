"""This project's own CUDA decoder behind any encoder: what lies between them, and turns taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.loop import Decoded, DecodesCaptions
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.base import Encoded, Engine, StepRunner

MAX_ROWS = 64  # rows B * K that the kernels take at once


class CudaEngine:
    """Encodes with one engine and decodes whole captions with another; an ``Engine``.

    encoder : its steps serve those who ask for single steps
    decoder : decodes at most ``max_rows`` rows (B * K) at once; more pictures come in parts

    Encoding and decoding take turns: while a caption's launches are recorded into a CUDA graph,
    another thread must not allocate or launch on the same device.
    """

    def __init__(
        self, encoder: Engine, decoder: DecodesCaptions, *, max_rows: int = MAX_ROWS
    ) -> None:
        self.image_size, self.vocab_size = encoder.image_size, encoder.vocab_size
        self.max_positions = encoder.max_positions
        self._encoder, self._decoder, self._max_rows = encoder, decoder, max_rows
        self._lock = threading.Lock()

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        """See ``Engine.encode``."""
        with self._lock:
            return self._encoder.encode(images)

    def begin(self, encoded: Encoded, beams: int) -> StepRunner:
        """Single steps, by the encoder's engine."""
        with self._lock:
            return self._encoder.begin(encoded, beams)

    def decode(
        self,
        encoded: Encoded,
        options: DecodingOptions,
        special: SpecialTokens,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> Decoded:
        """See ``DecodesCaptions.decode``."""
        at_once = max(1, self._max_rows // options.beams)
        with self._lock:
            parts = [
                self._decoder.decode(
                    part(encoded, start, at_once), options, special, should_stop=should_stop
                )
                for start in range(0, encoded.batch, at_once)
            ]
        if len(parts) == 1:
            return parts[0]
        return Decoded(
            hypotheses=[found for decoded in parts for found in decoded.hypotheses],
            step_ms=sum(decoded.step_ms for decoded in parts),
            decode_ms=sum(decoded.decode_ms for decoded in parts),
            steps=max(decoded.steps for decoded in parts),
            truncated=any(decoded.truncated for decoded in parts),
        )


def part(encoded: Encoded, start: int, count: int) -> Encoded:
    """Pictures ``start`` to ``start + count`` of what was encoded."""
    if start == 0 and count >= encoded.batch:
        return encoded
    here = slice(start, start + count)
    return replace(
        encoded,
        batch=len(range(encoded.batch)[here]),
        memory={name: array[here] for name, array in encoded.memory.items()},
        carry={name: array[here] for name, array in encoded.carry.items()},
        features=None if encoded.features is None else encoded.features[here],
        novelty=None if encoded.novelty is None else encoded.novelty[here],
    )
