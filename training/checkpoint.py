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

from edgecap.runtime.errors import DataError
from edgecap.training.models import CaptionModel, make_model
from edgecap.training.models.encoders import EncoderOptions

SHARD_BYTES = 14_000_000


@dataclass
class TrainState:
    """What a resumed run needs beside the weights."""

    epoch: int = 0  # epochs finished
    step: int = 0
    best: float = -1.0  # best validation CIDEr so far


def save_model(
    folder: Path,
    model: CaptionModel,
    tokenizer_json: str,
    meta: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write ``model-N.safetensors``, ``model.json`` and ``tokenizer.json``; replaced as a whole.

    dtype : how the weights are stored; float16 halves a checkpoint that is kept for good
    """
    from safetensors.torch import save_file

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for number, shard in enumerate(_shards(model.state_dict(), dtype)):
        save_file(shard, part / f"model-{number}.safetensors")
    description = {
        "family": model.family,
        "encoder": asdict(model.backbone.made_with),
        "options": asdict(model.options),
        "meta": meta,
    }
    (part / "model.json").write_text(json.dumps(description, indent=1))
    (part / "tokenizer.json").write_text(tokenizer_json)
    _replace(part, folder)


def _shards(state: dict[str, torch.Tensor], dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    """Parts of at most SHARD_BYTES, so that no file is too large for a git host."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, value in state.items():
        value = (value.to(dtype) if value.is_floating_point() else value).contiguous()
        if size and size + value.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    return shards


def load_model(folder: Path) -> tuple[CaptionModel, str, dict[str, Any]]:
    """Read what :func:`save_model` wrote: the model in evaluation mode, tokenizer JSON, meta.

    Raises DataError where the folder holds no checkpoint, or weights of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        description = json.loads((folder / "model.json").read_text())
        tokenizer_json = (folder / "tokenizer.json").read_text()
        family, options = description["family"], description["options"]
        encoder = EncoderOptions(**description["encoder"])
        state: dict[str, torch.Tensor] = {}
        for shard in sorted(folder.glob("model-*.safetensors")):
            state |= load_file(shard)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(
            f"{folder} is no whole checkpoint ({error}); give a folder that `edgecap train` wrote"
        ) from None
    model = make_model(family, encoder, options, pretrained=False)
    try:
        model.load_state_dict({name: _widen(value) for name, value in state.items()})
    except RuntimeError as error:
        reason = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()[:200]
        raise DataError(f"{folder} has weights of another model than it says: {reason}") from None
    return model.eval(), tokenizer_json, description["meta"]


def _widen(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


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
