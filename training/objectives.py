"""What a training step minimises: cross-entropy, or cross-entropy with a teacher beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from edgecap.runtime.errors import OptionsError
from edgecap.training.features import Features
from edgecap.training.models.base import CaptionModel, Loss, shift
from edgecap.training.models.encoders.base import Frozen


@dataclass
class Batch:
    """images, views : int64 [B], places in the corpus and in the cache
    frozen : the cached half of the encoder, tensors [B, ...]
    tokens : int64 [B, C, T + 1]: BOS, words, EOS, PAD
    """

    images: npt.NDArray[np.int64]
    views: npt.NDArray[np.int64]
    frozen: Frozen
    tokens: torch.Tensor


class Objective(Protocol):
    """A loss with what it needs beside the model."""

    def __call__(self, model: CaptionModel, batch: Batch) -> Loss:
        """The loss of one batch, with its graph."""


@dataclass(frozen=True)
class CrossEntropy:
    """The family's own loss on people's captions."""

    smoothing: float = 0.1

    def __call__(self, model: CaptionModel, batch: Batch) -> Loss:
        return model.loss(model.encode(batch.frozen), batch.tokens, self.smoothing)


@dataclass(frozen=True)
class DistillationOptions:
    """weight : share of the teacher's term in the loss, the rest is cross-entropy
    temperature : of both distributions; the term is scaled by its square (Hinton et al. 2015)
    """

    weight: float = 0.8
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1 or self.temperature <= 0:
            raise OptionsError(
                f"distillation weight {self.weight} and temperature {self.temperature}; give a "
                "weight from 0 to 1 and a temperature above 0"
            )


class Distillation:
    """Learn the teacher's distribution over every next word of people's captions.

    teacher : a model with the same tokenizer
    cache : what the teacher's own frozen half makes of the same pictures and views
    """

    def __init__(
        self,
        teacher: CaptionModel,
        cache: Features,
        options: DistillationOptions,
        smoothing: float,
    ) -> None:
        self.teacher = teacher.eval().requires_grad_(False)
        self.cache, self.options, self.smoothing = cache, options, smoothing

    def __call__(self, model: CaptionModel, batch: Batch) -> Loss:
        inputs, targets, kept = shift(batch.tokens)
        hot = self.options.temperature
        with torch.no_grad():
            seen = tuple(
                part.to(batch.tokens.device) for part in self.cache.batch(batch.images, batch.views)
            )
            hidden = self.teacher.decode(self.teacher.encode(seen), inputs).hidden[kept]
            wanted = (self.teacher.logits(hidden).float() / hot).softmax(-1)
        logits = model.logits(model.decode(model.encode(batch.frozen), inputs).hidden[kept]).float()
        taught = F.kl_div((logits / hot).log_softmax(-1), wanted, reduction="batchmean") * hot**2
        own = F.cross_entropy(logits, targets[kept], label_smoothing=self.smoothing)
        total = self.options.weight * taught + (1 - self.options.weight) * own
        return Loss(total, {"teacher": float(taught.detach()), "people": float(own.detach())})


def log_parts(losses: list[Loss]) -> dict[str, Any]:
    """Means over an epoch of every part that its losses had."""
    names = sorted({name for loss in losses for name in loss.parts})
    return {
        name: round(float(np.mean([loss.parts[name] for loss in losses if name in loss.parts])), 4)
        for name in names
    }
