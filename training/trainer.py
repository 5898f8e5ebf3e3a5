"""Training of a caption model on cached features by any objective; resumable at every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.checkpoint import (
    TrainState,
    load_state,
    save_state,
)
from edgecap.training.corpus import Corpus
from edgecap.training.distributed import Stepper, World, assign, full, shard, share_gradients
from edgecap.training.errors import TrainingError
from edgecap.training.features import Features
from edgecap.training.models.base import CaptionModel, Loss
from edgecap.training.models.layers import FastDropout
from edgecap.training.objectives import Batch, CrossEntropy, Objective, log_parts
from edgecap.training.optimizer import clip_gradients, make_average, make_optimizer, set_rates
from edgecap.training.options import TrainOptions
from edgecap.training.progress import Meter
from edgecap.training.run_folder import RunFolder
from edgecap.training.run_log import read_log, summary
from edgecap.training.validate import Validation

__all__ = ["Guard", "TrainOptions", "Trainer", "read_log"]

# Validation scores of an epoch -> why to stop, or None.
Guard = Callable[[dict[str, float]], str | None]
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Trainer:
    """Owns the model, its average and the optimizer of one run in ``folder``.

    objective : what a step minimises; the family's cross-entropy without one. One with
        ``weigh(images, words)`` says what its mean is taken over, as a share of which the parts of
        a batch are added up; it is words without it
    publish : what is done to the average before it is written as a checkpoint
    guard : asked after every validation; a reason ends the run, and the best checkpoint stays
    world : the processes that share each step
    score_first : validate before the first step, so that the best checkpoint is never worse
    """

    def __init__(
        self,
        model: CaptionModel,
        tokenizer_json: str,
        corpus: Corpus,
        cache: Features,
        validation: Validation,
        options: TrainOptions,
        folder: Path,
        objective: Objective | None = None,
        publish: Callable[[CaptionModel], CaptionModel] = lambda model: model,
        *,
        guard: Guard | None = None,
        world: World | None = None,
        score_first: bool = False,
    ) -> None:
        self.world = world or World()
        self.device = self.world.device
        self.tokenizer_json, self.options, self.folder = tokenizer_json, options, folder
        self.corpus, self.cache, self.validation = corpus, cache, validation
        self.publish, self.guard, self.score_first = publish, guard, score_first
        self.files = RunFolder(folder, tokenizer_json, options)
        self.objective = objective or CrossEntropy(options.label_smoothing)
        for value in getattr(self.objective, "__dict__", {}).values():
            if isinstance(value, nn.Module):
                value.to(self.device)  # a teacher
        self.steps_per_pass = len(corpus.used) // options.batch
        self.steps_per_epoch = options.steps_per_epoch or self.steps_per_pass
        self._check_sizes()
        self.model = model.to(self.device)
        self.average = make_average(model, options.average)
        self.plain: CaptionModel | None = None
        self.stepper = Stepper(model, self.objective)
        make_optimizer(model, options)  # freezes what is not trained, before weights are shared out
        if self.world.size > 1 and options.parallel == "fsdp":
            import copy

            self.plain = copy.deepcopy(model)
            shard(self.stepper, self.world, model)
            shard(self.average.module, self.world, cast(CaptionModel, self.average.module))
        self.optimizer = make_optimizer(model, options)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.state = TrainState()
        self._fresh = True
        self._shared: tuple[bool, nn.Module] | None = None
        self._order: tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None

    def run(self) -> None:
        """Train to the last epoch, from wherever the folder's state stands.

        Raises TrainingError where the loss is no number or the disk is full; DataError where the
        folder holds a run of another model or vocabulary.
        """
        self._resume()
        if self.world.first:
            self.files.open_events(self.state.step)
        try:
            if self.score_first and self._fresh:
                self._finish_epoch({"epoch": 0, "step": 0})
            while self.state.epoch < self.options.epochs and not self.state.stopped:
                self._epoch()
        finally:
            self.files.close()
        if self.state.stopped:
            self._say(f"stopped after epoch {self.state.epoch}: {self.state.stopped}")

    # ---- where it goes on --------------------------------------------------------------------

    def _check_sizes(self) -> None:
        o, parts = self.options, self.world.size * self.options.accumulate
        if self.steps_per_pass == 0:
            raise DataError(
                f"{len(self.corpus.used)} training pictures are fewer than a batch of {o.batch}; "
                "give options.batch as many or fewer"
            )
        if o.batch < parts:
            raise DataError(
                f"a batch of {o.batch} cannot be split into {parts} parts ({self.world.size} "
                f"processes, accumulate {o.accumulate}); give options.batch {parts} or more"
            )

    def _resume(self) -> None:
        with self.world.first_first():
            if self.world.first:
                self.files.recover()
        if not self.files.is_of(self.tokenizer_json):
            raise DataError(
                f"{self.folder} holds a run of another vocabulary: its captions or min_count have "
                "changed; name another folder"
            )
        state = load_state(self.folder / "state", self.model, self.average, self.optimizer)
        self.state, self._fresh = state or self.state, state is None
        if self.state.scaler:
            self.scaler.load_state_dict(dict(self.state.scaler))
        if not self.world.first:
            return
        for line in self.files.cut_log(self.state.epoch if state else -1):
            if self.guard:
                self.guard({k: v for k, v in line.items() if isinstance(v, float)})

    # ---- an epoch ----------------------------------------------------------------------------

    def _epoch(self) -> None:
        epoch, start = self.state.epoch, time.perf_counter()
        torch.manual_seed(self.options.seed * 1000 + epoch + 1_000_003 * self.world.rank)
        FastDropout.forget()
        self.model.train()
        # While it is frozen, the backbone's backward pass is saved as well.
        for parameter in self.model.tuned_backbone():
            parameter.requires_grad_(epoch >= self.options.frozen_epochs)
        losses: list[Loss] = []
        title = f"epoch {epoch + 1} of {self.options.epochs}"
        with Meter(self.steps_per_epoch, title, quiet=not self.world.first) as meter:
            for parts in self._batches():
                losses.append(self._step(parts))
                mean = float(np.mean([float(loss.total) for loss in losses[-50:]]))
                meter.advance(f"loss {mean:.3f}")
        self.state.epoch += 1
        self._finish_epoch(
            {
                "epoch": self.state.epoch,
                "step": self.state.step,
                "loss": float(np.mean([float(loss.total) for loss in losses])),
                **log_parts(losses),
                "seconds": round(time.perf_counter() - start, 1),
            }
        )

    def _batches(self) -> Iterator[list[tuple[Batch, float]]]:
        """An epoch's batches in their parts, each with its share; one is read ahead."""
        steps = range(self.state.step, self.state.step + self.steps_per_epoch)
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._read, steps[0])
            for step in steps:
                read = ahead.result()
                if step + 1 < steps.stop:
                    ahead = pool.submit(self._read, step + 1)
                yield [(self._to_device(batch), share) for batch, share in read]

    def _read(self, step: int) -> list[tuple[Batch, float]]:
        """This process's parts of a step's batch. The order goes on over the ends of epochs."""
        o, world = self.options, self.world
        number, place = divmod(step, self.steps_per_pass)
        if self._order is None or self._order[0] != number:
            generator = np.random.default_rng((o.seed, number))
            order = self.corpus.used[generator.permutation(len(self.corpus.used))]
            views = generator.integers(0, self.cache.views, len(order))
            self._order = (number, order, views)
        _, order, views = self._order
        chosen = np.arange(place * o.batch, (place + 1) * o.batch)
        whole = self._weigh(order[chosen])
        mine = np.array_split(chosen, world.size * o.accumulate)[world.rank :: world.size]
        return [
            (self._batch(order[part], views[part]), self._weigh(order[part]) / whole)
            for part in mine
        ]

    def _weigh(self, images: npt.NDArray[np.int64]) -> float:
        words = self.corpus.words[images]
        weigh = getattr(self.objective, "weigh", None)
        return float(weigh(images, words) if weigh else words.sum())

    def _batch(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Batch:
        batch = Batch(
            images,
            views,
            self.cache.batch(images, views),
            torch.from_numpy(self.corpus.tokens[images]),
        )
        if self.device.type == "cuda":
            batch.frozen = tuple(
                part.pin_memory() if part.device.type == "cpu" else part for part in batch.frozen
            )
            batch.tokens = batch.tokens.pin_memory()
        return batch

    def _to_device(self, batch: Batch) -> Batch:
        return replace(
            batch,
            frozen=tuple(part.to(self.device, non_blocking=True) for part in batch.frozen),
            tokens=batch.tokens.to(self.device, non_blocking=True),
        )

    # ---- a step ------------------------------------------------------------------------------

    def _step(self, parts: list[tuple[Batch, float]]) -> Loss:
        set_rates(
            self.optimizer,
            self.options.rate(self.state.step, self.steps_per_epoch * self.options.epochs),
        )
        loss = self.gradients(parts)
        self.scaler.unscale_(self.optimizer)
        norm = clip_gradients(self.model, self.options.clip)
        # With a loss scale, such a step is left out and the scale made smaller.
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            raise self._diverged(f"the gradient's norm is {norm}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.average.update_parameters(self.model)
        self.state.step += 1
        if self.state.step % 10 == 0:
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            values = {"step/loss": float(loss.total), "step/rate": rate, "step/gradient": norm}
            self.files.scalars(values, self.state.step)
        return loss

    def gradients(self, parts: list[tuple[Batch, float]]) -> Loss:
        """Leave the gradients of the whole batch in the model; its loss, parts of this process's.

        parts : this process's batches, each with its share of the words of the whole
        """
        self.optimizer.zero_grad(set_to_none=True)
        shared = self._share()
        dtype = DTYPES[self.options.precision]
        total, mine, found = 0.0, sum(share for _, share in parts), dict[str, float]()
        for number, (batch, share) in enumerate(parts):
            if hasattr(shared, "require_backward_grad_sync"):  # DDP adds up at the last part
                shared.require_backward_grad_sync = cast(Any, number == len(parts) - 1)
            with torch.autocast(self.device.type, dtype, enabled=self.options.precision != "fp32"):
                loss = shared(batch)
            total += share * float(loss.detach())
            for name, value in self.stepper.parts.items():
                found[name] = found.get(name, 0.0) + share / mine * value
            if math.isfinite(float(loss.detach())) or self.world.size > 1:
                # Processes' gradients are averaged; the shares are of the sum.
                torch.autograd.backward(self.scaler.scale(loss * (share * self.world.size)))
        total = self.world.sum(total)
        if not math.isfinite(total):
            raise self._diverged(f"the loss is {total}")
        return Loss(torch.tensor(total), found)

    def _share(self) -> nn.Module:
        """What is called for a loss: the stepper, under DDP where processes share gradients."""
        if self.world.size == 1 or self.plain is not None:
            return self.stepper
        tuned = any(parameter.requires_grad for parameter in self.model.tuned_backbone())
        if self._shared is None or self._shared[0] != tuned:
            self._shared = None  # takes its hooks off the weights
            self._shared = (tuned, share_gradients(self.stepper, self.world))
        return self._shared[1]

    def _diverged(self, what: str) -> TrainingError:
        saved = self.folder / "last"
        kept = f"{saved} holds epoch {self.state.epoch}" if saved.exists() else "nothing is saved"
        return TrainingError(
            f"{what} at step {self.state.step + 1}; {kept}: give lower options.decoder_rate and "
            "options.encoder_rate, a longer options.warm_up or options.precision=fp32"
        )

    # ---- the end of an epoch -----------------------------------------------------------------

    def _finish_epoch(self, line: dict[str, Any]) -> None:
        """Validate, log and save; ``line`` is what the log gets beside the scores."""
        averaged = self._averaged()
        if self.world.first:
            self._judge(averaged, line)
        # The others learn whether to go on; with that they have waited for the validation, too.
        stop = self.world.sum(float(bool(self.state.stopped)))
        if stop and not self.state.stopped:
            self.state.stopped = "the first process stopped"
        save_state(
            self.folder / "state",
            self.model,
            self.average,
            self.optimizer,
            self.state,
            write=self.world.first,
        )
        self.world.wait()

    def _averaged(self) -> CaptionModel:
        """The average as a whole model."""
        averaged = cast(CaptionModel, self.average.module)
        if self.plain is None:
            return averaged
        own = self.plain.state_dict()
        for name, value in averaged.state_dict().items():
            assign(own[name], full(value))
        return self.plain

    def _judge(self, averaged: CaptionModel, line: dict[str, Any]) -> None:
        scores = self.validation.score(averaged)
        sample = self._sample(averaged)
        line |= {name: round(value, 4) for name, value in scores.items()}
        line["sample"] = sample
        state = self.state
        state.since_best = 0 if scores["CIDEr"] > state.best else state.since_best + 1
        state.scaler = dict(self.scaler.state_dict())
        if self.guard and (reason := self.guard(scores)):
            state.stopped = reason
        elif self.options.patience and state.since_best >= self.options.patience:
            state.stopped = f"no better CIDEr for {state.since_best} epochs"
        self.files.log(line, state.step)
        self._say(summary(line, self.options.epochs))
        if state.since_best == 0:
            state.best = scores["CIDEr"]
        self.files.save(self.publish(averaged), line, best=state.since_best == 0)

    def _sample(self, averaged: CaptionModel) -> dict[str, str]:
        """What the model says of the first validation picture."""
        one = replace(self.validation, images=self.validation.images[:1], groups=())
        return {"image": one.images[0].id, "caption": one.captions(averaged)[0]}

    def _say(self, text: str) -> None:
        if self.world.first:
            print(text, flush=True)
