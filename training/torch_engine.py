"""The runtime's engine contract on the torch model: validation, and the reference for exports."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from edgecap.runtime.engines.base import Encoded
from edgecap.training.models.image_transformer import IMAGE_SIZE, ImageTransformer


class TorchEngine:
    """Runs an :class:`ImageTransformer` through the same beam search as every exported graph."""

    def __init__(self, model: ImageTransformer) -> None:
        self.model = model.eval()
        self.image_size = IMAGE_SIZE
        self.vocab_size = model.options.vocab_size
        self.max_positions = model.options.max_positions

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        with torch.inference_mode():
            return self.encode_trunk(*self.model.trunk(torch.from_numpy(images)))

    def encode_trunk(self, trunk: torch.Tensor, colours: torch.Tensor) -> Encoded:
        """The rest of the encoder on cached trunk features."""
        with torch.inference_mode():
            tokens, pooled = self.model.grid(trunk)
            memory = self.model.remember(trunk, colours, tokens, pooled)
            named = {}
            for i, layer in enumerate(self.model.layers()):
                keys, values = layer.memory(memory)
                named[f"memory.key.{i}"] = keys.contiguous().numpy()
                named[f"memory.value.{i}"] = values.contiguous().numpy()
        features = torch.nn.functional.normalize(pooled, dim=-1).numpy()
        return Encoded(len(features), named, {}, features, None)

    def begin(self, encoded: Encoded, beams: int) -> TorchStepRunner:
        return TorchStepRunner(self.model, encoded, beams)


class TorchStepRunner:
    """Decoder steps with growing caches of every layer."""

    def __init__(self, model: ImageTransformer, encoded: Encoded, beams: int) -> None:
        o = model.options
        self.model, self.beams, self.batch = model, beams, encoded.batch
        self.memory = [
            (
                torch.from_numpy(encoded.memory[f"memory.key.{i}"]),
                torch.from_numpy(encoded.memory[f"memory.value.{i}"]),
            )
            for i in range(o.decoder_layers)
        ]
        shape = (2, o.decoder_layers, encoded.batch, beams * o.max_positions, o.width)
        self.cache = torch.zeros(shape)

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        used = position * self.beams
        with torch.inference_mode():
            cache = [
                (self.cache[0, i, :, :used], self.cache[1, i, :, :used])
                for i in range(len(self.memory))
            ]
            logits, appended = self.model.step(
                torch.from_numpy(tokens).view(self.batch, self.beams),
                torch.tensor(position),
                torch.from_numpy(ancestry[:, :used]).view(self.batch, self.beams, used),
                self.memory,
                cache,
            )
            for i, (key, value) in enumerate(appended):
                self.cache[0, i, :, used : used + self.beams] = key
                self.cache[1, i, :, used : used + self.beams] = value
        return logits.reshape(self.batch * self.beams, -1).numpy()
