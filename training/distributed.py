"""Several processes under torchrun: who is who, and how one step is shared.

Every process computes its part of the same batch. A part's loss is weighted by its share of the
batch's words before the gradients are added up, so that the sum is that of one process.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from edgecap.runtime.errors import OptionsError

if TYPE_CHECKING:
    from edgecap.training.models.base import CaptionModel
    from edgecap.training.objectives import Batch, Objective


@dataclass(frozen=True)
class World:
    """This process among ``size`` of them; it computes on ``device``."""

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def sum(self, value: float) -> float:
        """The sum of every process's ``value``; waits for all of them."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(total)
        return float(total)

    def wait(self) -> None:
        """Until every process is here."""
        self.sum(0.0)

    @contextmanager
    def first_first(self) -> Iterator[None]:
        """Run the body in the first process, then in the others: they find what it wrote."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


def pick_device(name: str) -> torch.device:
    """ "auto", "cpu" or "cuda" as a device; OptionsError where it is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionsError(
            "device is cuda, and torch sees no GPU here; give device=cpu or install torch for CUDA"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def joined(device: str, parallel: str) -> Iterator[World]:
    """The world that torchrun's environment describes; alone without one."""
    where, size = pick_device(device), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(where)
        return
    if parallel == "none":
        raise OptionsError(
            f"{size} processes, but options.parallel is none; give ddp or fsdp, or one process"
        )
    rank = int(os.environ["RANK"])
    backend = "gloo"
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(where)
        backend = "cpu:gloo,cuda:nccl"
    # The others wait while the first one validates.
    torch.distributed.init_process_group(backend, timeout=timedelta(hours=12))
    try:
        yield World(where, rank, size)
    finally:
        # Models in cycles would keep the group's threads alive while the interpreter goes.
        gc.collect()
        torch.distributed.destroy_process_group()


class Stepper(nn.Module):
    """An objective as the forward pass of one module, which DDP and FSDP hook into.

    parts : what the last loss was made of
    """

    def __init__(self, model: CaptionModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.parts: dict[str, float] = {}
        # In a tuple, so that a teacher inside is no part of this module.
        self._objective = (objective,)

    def forward(self, batch: Batch) -> torch.Tensor:
        loss = self._objective[0](self.model, batch)
        self.parts = loss.parts
        return loss.total


def share_gradients(stepper: Stepper, world: World) -> nn.Module:
    """``stepper`` under DDP; made anew when other parameters begin to be trained."""
    if world.size == 1:
        return stepper
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(stepper, find_unused_parameters=True)


def shard(module: nn.Module, world: World, model: CaptionModel) -> None:
    """Leave every process its part of the weights, in place (``fully_shard``).

    The weights of a layer in a list of layers are gathered only while it runs, if its forward pass
    is all there is to call; all others are gathered for the whole step.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh)
    fully_shard(module, mesh=mesh)


def _layers(model: CaptionModel) -> list[nn.Module]:
    found: list[nn.Module] = []
    inside: set[nn.Module] = set(model.backbone.modules())
    for part in model.modules():
        if not isinstance(part, nn.ModuleList) or part in inside:
            continue
        for layer in part:
            # Other methods would use the weights where the hooks of the forward pass are not asked.
            names = {name for kind in _own_kinds(layer) for name in vars(kind)}
            if not any(callable(getattr(layer, n)) and n[0] != "_" for n in names - {"forward"}):
                found.append(layer)
                inside.update(layer.modules())
    return found


def _own_kinds(layer: nn.Module) -> tuple[type, ...]:
    kinds = type(layer).__mro__
    return kinds[: kinds.index(nn.Module)]


def local(value: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor; the tensor itself where it is whole."""
    return cast(Any, value).to_local() if hasattr(value, "to_local") else value


def full(value: torch.Tensor) -> torch.Tensor:
    """The whole of a sharded tensor, gathered from all processes."""
    return cast(Any, value).full_tensor() if hasattr(value, "full_tensor") else value


@torch.no_grad()
def assign(target: torch.Tensor, value: torch.Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        sharded = cast(Any, target)
        value = distribute_tensor(
            value.to(sharded.to_local().device),
            sharded.device_mesh,
            sharded.placements,
            src_data_rank=None,  # every process has the whole: nothing is sent
        )
    target.copy_(value)
