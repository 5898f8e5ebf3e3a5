"""The runtime's engine contract on a torch model: validation, and the reference for exports."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgecap.runtime.engines.base import Encoded
from edgecap.training.models.base import CaptionModel, Named
from edgecap.training.models.encoders.base import Frozen


class TorchEngine:
    """Runs a :class:`CaptionModel` through the same beam search as every exported graph."""

    def __init__(self, model: CaptionModel) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.image_size = model.image_size
        self.vocab_size = model.options.vocab_size
        self.max_positions = model.options.max_positions

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        with torch.inference_mode():
            return self.encode_frozen(self.model.frozen(torch.from_numpy(images).to(self.device)))

    def encode_frozen(self, frozen: Frozen) -> Encoded:
        """The rest of the encoder on cached features."""
        with torch.inference_mode():
            encoding = self.model.encode(tuple(part.to(self.device) for part in frozen))
        pooled = torch.nn.functional.normalize(encoding.pooled, dim=-1).float()
        return Encoded(
            len(pooled),
            {f"memory.{name}": _to_numpy(value) for name, value in encoding.memory.items()},
            {f"carry.{name}": _to_numpy(value) for name, value in encoding.carry.items()},
            _to_numpy(pooled),
            None,
        )

    def begin(self, encoded: Encoded, beams: int) -> TorchStepRunner:
        return TorchStepRunner(self.model, self.device, encoded, beams)


class TorchStepRunner:
    """Decoder steps; owns the caches and the recurrent state of one decode."""

    def __init__(
        self, model: CaptionModel, device: torch.device, encoded: Encoded, beams: int
    ) -> None:
        self.model, self.device, self.beams, self.batch = model, device, beams, encoded.batch
        self.memory = self._named(encoded.memory, "memory.")
        self.carry: Named = {
            name: value[:, None].expand(-1, beams, *value.shape[1:])
            for name, value in self._named(encoded.carry, "carry.").items()
        }
        slots = beams * model.options.max_positions
        self.cache = {
            name: torch.zeros(encoded.batch, slots, width, device=device)
            for name, width in model.cache_widths().items()
        }

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        used = position * self.beams
        side = (self.batch, self.beams)
        with torch.inference_mode():
            found = self.model.step(
                self._tensor(tokens).view(side),
                torch.tensor(position, device=self.device),
                self._tensor(ancestry[:, :used]).view(*side, used),
                self.memory,
                self._gathered(parents),
                {name: value[:, :used] for name, value in self.cache.items()},
            )
            for name, rows in found.append.items():
                self.cache[name][:, used : used + self.beams] = rows
        self.carry = found.carry
        return _to_numpy(found.logits.float()).reshape(self.batch * self.beams, -1)

    def _gathered(self, parents: npt.NDArray[np.int64]) -> Named:
        index = self._tensor(parents)
        return {
            name: value.flatten(0, 1).index_select(0, index).view_as(value)
            for name, value in self.carry.items()
        }

    def _named(self, arrays: dict[str, npt.NDArray[Any]], prefix: str) -> Named:
        return {n.removeprefix(prefix): self._tensor(a) for n, a in arrays.items()}

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


def _to_numpy(value: torch.Tensor) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = value.detach().cpu().contiguous().numpy()
    return array
