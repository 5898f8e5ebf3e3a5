"""Training of a caption model on cached features by any objective; resumable at every epoch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel

from edgecap.training.checkpoint import TrainState, load_state, save_model, save_state
from edgecap.training.corpus import Corpus
from edgecap.training.features import FeatureCache
from edgecap.training.models.base import CaptionModel, Loss
from edgecap.training.objectives import Batch, CrossEntropy, Objective, log_parts
from edgecap.training.progress import track
from edgecap.training.validate import Validation


@dataclass(frozen=True)
class TrainOptions:
    """The recipe. Rates are peaks: linear warm-up, then cosine down to 3 %."""

    epochs: int = 16
    batch: int = 32  # pictures; each brings all its captions
    decoder_rate: float = 6e-4
    encoder_rate: float = 2e-4  # of the backbone's tail, once it is unfrozen
    frozen_epochs: int = 4  # the tail keeps its ImageNet weights for so long
    warm_up: int = 300  # steps
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    average: float = 0.998  # decay of the exponential moving average that is shipped
    clip: float = 1.0
    seed: int = 7
    autocast: bool = True  # bfloat16 matrix products

    def rate(self, step: int, steps: int) -> float:
        """Factor on the peak rates at ``step`` of ``steps``."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, steps - self.warm_up)
        return 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Trainer:
    """Owns the model, its average and the optimizer of one run in ``folder``.

    objective : what a step minimises; the family's cross-entropy without one
    publish : what is done to the average before it is written as a checkpoint
    """

    def __init__(
        self,
        model: CaptionModel,
        tokenizer_json: str,
        corpus: Corpus,
        cache: FeatureCache,
        validation: Validation,
        options: TrainOptions,
        folder: Path,
        objective: Objective | None = None,
        publish: Callable[[CaptionModel], CaptionModel] = lambda model: model,
    ) -> None:
        self.publish = publish
        self.objective = objective or CrossEntropy(options.label_smoothing)
        self.model, self.tokenizer_json, self.options, self.folder = (
            model,
            tokenizer_json,
            options,
            folder,
        )
        self.corpus, self.cache, self.validation = corpus, cache, validation
        self.average = AveragedModel(
            model, multi_avg_fn=_moving_average(options.average), use_buffers=False
        )
        self.optimizer = torch.optim.AdamW(_groups(model, options), betas=(0.9, 0.98), fused=True)
        self.state = TrainState()
        self.steps_per_epoch = len(corpus.paths) // options.batch

    def run(self) -> None:
        """Train to the last epoch, from wherever the folder's state stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        restored = load_state(self.folder / "state", self.model, self.average, self.optimizer)
        self.state = restored or self.state
        while self.state.epoch < self.options.epochs:
            self._epoch()

    def _epoch(self) -> None:
        epoch, start = self.state.epoch, time.perf_counter()
        generator = np.random.default_rng((self.options.seed, epoch))
        torch.manual_seed(self.options.seed * 1000 + epoch)
        order = generator.permutation(len(self.corpus.paths))
        views = generator.integers(0, self.cache.views, len(order))
        self.model.train()
        # While it is frozen, the backbone's backward pass is saved as well.
        for parameter in self.model.tuned_backbone():
            parameter.requires_grad_(epoch >= self.options.frozen_epochs)
        losses: list[Loss] = []
        batches = range(self.steps_per_epoch)
        for b in track(batches, f"epoch {epoch + 1} of {self.options.epochs}"):
            chosen = order[b * self.options.batch : (b + 1) * self.options.batch]
            losses.append(self._step(chosen, views[chosen]))
        self.state.epoch += 1
        trained = time.perf_counter() - start
        averaged = cast(CaptionModel, self.average.module)
        scores = self.validation.score(averaged)
        line = {
            "epoch": self.state.epoch,
            "step": self.state.step,
            "loss": float(np.mean([float(loss.total) for loss in losses])),
            **log_parts(losses),
            "seconds": round(trained, 1),
            **{name: round(value, 4) for name, value in scores.items()},
        }
        with (self.folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        if scores["CIDEr"] > self.state.best:
            self.state.best = scores["CIDEr"]
            save_model(self.folder / "best", self.publish(averaged), self.tokenizer_json, line)
        save_model(self.folder / "last", self.publish(averaged), self.tokenizer_json, line)
        save_state(self.folder / "state", self.model, self.average, self.optimizer, self.state)

    def _step(self, images: np.ndarray, views: np.ndarray) -> Loss:
        factor = self.options.rate(self.state.step, self.steps_per_epoch * self.options.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["peak"]
        frozen = self.cache.batch(images, views)
        batch = Batch(images, views, frozen, torch.from_numpy(self.corpus.tokens[images]))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.autocast):
            loss = self.objective(self.model, batch)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.total)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.options.clip)
        self.optimizer.step()
        self.average.update_parameters(self.model)
        self.state.step += 1
        return Loss(loss.total.detach(), loss.parts)


def _moving_average(decay: float) -> Callable[[Any, Any, torch.Tensor | int], None]:
    """Exponential moving average whose decay grows with the steps: early ones count less."""

    def update(average: Any, current: Any, steps: torch.Tensor | int) -> None:
        n = int(steps)
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def _groups(model: CaptionModel, options: TrainOptions) -> list[dict[str, object]]:
    """Parameter groups: the backbone's tail at its own rate, no decay on norms and biases."""
    tail = {id(p) for p in model.tuned_backbone()}
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if name.startswith("backbone.") and id(parameter) not in tail:
            parameter.requires_grad_(False)
            continue
        decay = options.weight_decay if parameter.ndim >= 2 and "place" not in name else 0.0
        rate = options.encoder_rate if id(parameter) in tail else options.decoder_rate
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "peak": rate, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]
