"""A peer of the decoder's kernels: the torch step in a CUDA graph, the beam logic on the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from machine import Bench

from edgecap.runtime.engines.base import Encoded


class TorchGraphEngine:
    """An ``Engine`` over a torch model's ``step``: static buffers, one replay a step.

    model : what ``TorchEngine`` runs, in eval mode, on the bench's device
    dtype : torch's type of weights, memory and caches
    """

    def __init__(self, bench: Bench, model: Any, dtype: Any) -> None:
        self.bench, self.model, self.dtype = bench, model.to(bench.cuda.where, dtype), dtype
        self.vocab_size = model.options.vocab_size
        self.max_positions = model.options.max_positions
        self.image_size = model.image_size
        self._runners: dict[tuple[int, int], TorchGraphRunner] = {}

    def begin(self, encoded: Encoded, beams: int) -> TorchGraphRunner:
        key = (encoded.batch, beams)
        if key not in self._runners:
            self._runners[key] = TorchGraphRunner(self, encoded, beams)
        self._runners[key].start(encoded)
        return self._runners[key]


class TorchGraphRunner:
    """Steps of one (B, K). Families with keys and values; recurrent state is not needed here."""

    def __init__(self, engine: TorchGraphEngine, encoded: Encoded, beams: int) -> None:
        import torch

        self.torch, device = torch, engine.bench.cuda.where
        batch, limit = encoded.batch, engine.max_positions
        self.rows = batch * beams
        self.tokens = torch.zeros(batch, beams, dtype=torch.int64, device=device)
        self.position = torch.zeros((), dtype=torch.int64, device=device)
        self.ancestry = torch.zeros(batch, beams, beams * limit, dtype=torch.bool, device=device)
        self.memory = {
            name.removeprefix("memory."): torch.from_numpy(np.ascontiguousarray(array)).to(
                device, engine.dtype
            )
            for name, array in encoded.memory.items()
        }
        self.cache = {
            name: torch.zeros(batch, beams * limit, width, dtype=engine.dtype, device=device)
            for name, width in engine.model.cache_widths().items()
        }
        slots = torch.arange(beams, device=device)
        pin = device == "cuda"
        self.host = torch.zeros(self.rows, engine.vocab_size, pin_memory=pin)

        def step() -> None:
            with torch.no_grad():
                found = engine.model.step(
                    self.tokens, self.position, self.ancestry, self.memory, {}, self.cache
                )
                here = slots + self.position * beams
                for name, rows in found.append.items():
                    self.cache[name].index_copy_(1, here, rows.to(engine.dtype))
                self.host.copy_(found.logits.float().view(self.rows, -1), non_blocking=True)

        self.replay = engine.bench.captured(step)

    def start(self, encoded: Encoded) -> None:
        for name, buffer in self.memory.items():
            buffer.copy_(
                self.torch.from_numpy(np.ascontiguousarray(encoded.memory[f"memory.{name}"]))
            )

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        self.tokens.copy_(self.torch.from_numpy(tokens).view_as(self.tokens), non_blocking=True)
        self.position.fill_(position)
        seen = self.torch.from_numpy(ancestry).view_as(self.ancestry)
        self.ancestry.copy_(seen, non_blocking=True)
        self.replay()
        if self.host.is_pinned():
            self.torch.cuda.current_stream().synchronize()
        logits: npt.NDArray[np.float32] = self.host.numpy()
        return logits
