"""AdamW (Loshchilov and Hutter 2019) with parameter groups, and the moving average of weights."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from edgecap.training.distributed import local
from edgecap.training.models.base import CaptionModel
from edgecap.training.options import TrainOptions


def make_optimizer(model: CaptionModel, options: TrainOptions) -> torch.optim.AdamW:
    """The backbone's tail at its own rate, no decay on norms and biases; freezes the rest of the
    backbone. Every group has its "peak" rate."""
    return torch.optim.AdamW(_groups(model, options), betas=(0.9, 0.98), fused=True)


def make_average(model: CaptionModel, decay: float) -> AveragedModel:
    """Exponential moving average whose decay grows with the steps: early ones count less."""

    def update(average: Any, current: Any, steps: torch.Tensor | int) -> None:
        n = int(steps)
        weight = 1 - min(decay, (1 + n) / (10 + n))
        torch._foreach_lerp_([local(a) for a in average], [local(c) for c in current], weight)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=False)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak"]


def clip_gradients(model: torch.nn.Module, largest: float) -> float:
    """Scale the gradients to a norm of at most ``largest``; returns the norm before."""
    norm: Any = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def _groups(model: CaptionModel, options: TrainOptions) -> list[dict[str, object]]:
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
