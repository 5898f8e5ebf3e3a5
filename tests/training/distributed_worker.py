"""What each process of ``test_distributed.py`` does: gradients, then a whole run, for each way.

torchrun --nproc-per-node 2 distributed_worker.py PROJECT OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from small_trainer import clip_gpt, gradients, make_trainer  # noqa: E402

from edgecap.training.distributed import World, joined  # noqa: E402
from edgecap.training.recipe import Recipe, read_recipe  # noqa: E402
from edgecap.training.trainer import Trainer  # noqa: E402


class StopError(Exception):
    pass


def stop_at_two(trainer: Trainer) -> None:
    step = trainer._step

    def stopping(parts: list) -> object:
        if trainer.state.step == 4:
            raise StopError
        return step(parts)

    trainer._step = stopping


def main(project: Path, out: Path) -> None:
    torch.set_num_threads(1)
    recipe = read_recipe(str(project / "small.yaml"), str(project), "")
    with joined("cpu", "ddp") as world:
        for parallel in ("ddp", "fsdp"):
            work(recipe, out, world, parallel)


def work(recipe: Recipe, out: Path, world: World, parallel: str) -> None:
    options = {"batch": 5, "precision": "fp32", "parallel": parallel, "world": world}
    for accumulate in (1, 2):
        found = gradients(
            make_trainer(recipe, out / "x", out / "cache", accumulate=accumulate, **options)
        )
        if world.first:
            save_file(found, out / f"{parallel}-{accumulate}.safetensors")
    found = gradients(make_trainer(clip_gpt(recipe), out / "x", out / "clip", **options))
    if world.first:
        save_file(found, out / f"{parallel}-clip-gpt.safetensors")
    broken = make_trainer(recipe, out / parallel, out / "cache", **options)
    stop_at_two(broken)
    try:
        broken.run()
    except StopError:
        make_trainer(recipe, out / parallel, out / "cache", **options).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
