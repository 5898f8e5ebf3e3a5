"""Checkpoints: a folder with tensors in safetensors and everything else in JSON. No pickle."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecap.training.models.image_transformer import ImageTransformer, ImageTransformerOptions


@dataclass
class TrainState:
    """What a resumed run needs beside the weights."""

    epoch: int = 0  # epochs finished
    step: int = 0
    best: float = -1.0  # best validation CIDEr so far


def save_model(
    folder: Path, model: ImageTransformer, tokenizer_json: str, meta: dict[str, Any]
) -> None:
    """Write ``model.safetensors``, ``model.json`` and ``tokenizer.json``; replaced as a whole."""
    from safetensors.torch import save_file

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, part / "model.safetensors"
    )
    description = {"family": model.family, "options": asdict(model.options), "meta": meta}
    (part / "model.json").write_text(json.dumps(description, indent=1))
    (part / "tokenizer.json").write_text(tokenizer_json)
    _replace(part, folder)


def load_model(folder: Path) -> tuple[ImageTransformer, str, dict[str, Any]]:
    """Read what :func:`save_model` wrote: the model in evaluation mode, tokenizer JSON, meta."""
    from safetensors.torch import load_file

    description = json.loads((folder / "model.json").read_text())
    model = ImageTransformer(ImageTransformerOptions(**description["options"]))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval(), (folder / "tokenizer.json").read_text(), description["meta"]


def save_state(
    folder: Path,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
) -> None:
    """Write the training state after an epoch."""
    from safetensors.torch import save_file

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_clone(model.state_dict()), part / "weights.safetensors")
    save_file(_clone(average.state_dict()), part / "average.safetensors")
    moments = {
        f"{i}.{name}": value.clone()
        for i, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    save_file(moments, part / "optimizer.safetensors")
    (part / "state.json").write_text(json.dumps(asdict(state)))
    _replace(part, folder)


def load_state(
    folder: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainState | None:
    """Restore a state in place; None when there is none."""
    from safetensors.torch import load_file

    if not (folder / "state.json").exists():
        return None
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    average.load_state_dict(load_file(folder / "average.safetensors"))
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    return TrainState(**json.loads((folder / "state.json").read_text()))


def _clone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone().contiguous() for name, value in state.items()}


def _replace(part: Path, folder: Path) -> None:
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)
