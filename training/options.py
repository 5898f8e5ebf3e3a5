"""How a run is trained: schedule, regularisation, precision and machines."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgecap.runtime.errors import OptionsError


@dataclass(frozen=True)
class TrainOptions:
    """Rates are peaks: linear warm-up, then cosine down to 3 %.

    batch : pictures a step, whatever number of parts and processes they are split over; each
        brings all its captions
    accumulate : parts that a process computes its share of a batch in, to use less memory
    steps_per_epoch : steps between validations; 0 goes once through the pictures
    frozen_epochs : the backbone's tail keeps its published weights for so long
    average : decay of the exponential moving average that is shipped
    patience : epochs without a better validation CIDEr before the run stops; 0 never stops
    parallel : what torchrun's processes share: "ddp" gradients, "fsdp" weights and optimizer, too.
        Without torchrun all are the same
    events : write TensorBoard events
    keep : checkpoints of so many epochs, the newest, stay as RUN/epoch-N; their mean is often
        better than the best of them (``edgecap average``)
    """

    epochs: int = 16
    batch: int = 32
    accumulate: int = 1
    steps_per_epoch: int = 0
    decoder_rate: float = 6e-4
    encoder_rate: float = 2e-4
    frozen_epochs: int = 4
    warm_up: int = 300  # steps
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average: float = 0.998
    clip: float = 1.0  # of the gradient's norm
    patience: int = 0
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"  # of matrix products
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: Literal["none", "ddp", "fsdp"] = "ddp"
    events: bool = True
    keep: int = 0
    seed: int = 7

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in (
            "steps_per_epoch",
            "frozen_epochs",
            "warm_up",
            "patience",
            "weight_decay",
            "keep",
        ):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        for name in ("decoder_rate", "encoder_rate", "clip"):
            self._check(name, 0 < getattr(self, name) < math.inf, "a number above 0")
        for name in ("label_smoothing", "average"):
            self._check(name, 0 <= getattr(self, name) < 1, "0 or more and below 1")
        self._check("seed", self.seed >= 0, "0 or more")
        for name, choices in (
            ("precision", ("bf16", "fp16", "fp32")),
            ("device", ("auto", "cpu", "cuda")),
            ("parallel", ("none", "ddp", "fsdp")),
        ):
            self._check(name, getattr(self, name) in choices, f"one of {', '.join(choices)}")
        if self.precision == "fp16" and self.parallel == "fsdp":
            raise OptionsError("precision fp16 does not go with parallel fsdp; give bf16 or ddp")

    def _check(self, name: str, good: bool, accepted: str) -> None:
        if not good:
            raise OptionsError(f"{name} is {getattr(self, name)!r}; give {accepted}")

    def rate(self, step: int, steps: int) -> float:
        """Factor on the peak rates at ``step`` of ``steps``."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, steps - self.warm_up)
        return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
