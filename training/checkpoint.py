"""Checkpoints: a folder with tensors in safetensors and everything else in JSON. No pickle.

A folder is written beside the old one and takes its place when it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.distributed import assign, full
from edgecap.training.errors import TrainingError
from edgecap.training.models import CaptionModel, make_model
from edgecap.training.models.encoders import EncoderOptions

SHARD_BYTES = 14_000_000


@dataclass
class TrainState:
    """What a resumed run needs beside the weights.

    stopped : why the run ended before its last epoch; empty while it goes on
    scaler : the loss scale of fp16
    """

    epoch: int = 0  # epochs finished
    step: int = 0
    best: float = -1.0  # best validation CIDEr so far
    since_best: int = 0  # epochs
    stopped: str = ""
    scaler: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Described:
    """A checkpoint without its weights."""

    family: str
    encoder: EncoderOptions
    options: dict[str, Any]
    meta: dict[str, Any]
    tokenizer_json: str


def save_model(
    folder: Path,
    model: CaptionModel,
    tokenizer_json: str,
    meta: dict[str, Any],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write ``model-N.safetensors``, ``model.json`` and ``tokenizer.json``; replaced as a whole.

    dtype : how the weights are stored; float16 halves a checkpoint that is kept for good

    Raises TrainingError where they cannot be written; the old ones stay.
    """
    from safetensors.torch import save_file

    with replacing(folder) as part:
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


def describe(folder: Path) -> Described:
    """Read everything of a checkpoint but its weights. Raises DataError where there is none."""
    try:
        found = json.loads((folder / "model.json").read_text())
        return Described(
            found["family"],
            EncoderOptions(**found["encoder"]),
            dict(found["options"]),
            found["meta"],
            (folder / "tokenizer.json").read_text(),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _no_checkpoint(folder, error) from None


def load_model(folder: Path) -> tuple[CaptionModel, str, dict[str, Any]]:
    """Read what :func:`save_model` wrote: the model in evaluation mode, tokenizer JSON, meta.

    Raises DataError where the folder holds no checkpoint, or weights of another model.
    """
    found = describe(folder)
    model = make_model(found.family, found.encoder, found.options, pretrained=False)
    try:
        model.load_state_dict(_weights(folder))
    except RuntimeError as error:
        reason = str(error).splitlines()[1 if "\n" in str(error) else 0].strip()[:200]
        raise DataError(f"{folder} has weights of another model than it says: {reason}") from None
    return model.eval(), found.tokenizer_json, found.meta


def load_weights(model: CaptionModel, tokenizer_json: str, folder: Path) -> None:
    """Start ``model`` from the weights of a checkpoint of the same family and vocabulary.

    Raises DataError that says what is different.
    """
    found = describe(folder)
    if found.family != model.family:
        raise DataError(
            f"{folder} is a checkpoint of the family {found.family}; this run trains "
            f"{model.family}: give a checkpoint of that family"
        )
    if not same_tokenizer(found.tokenizer_json, tokenizer_json):
        raise DataError(
            f"{folder} has another vocabulary than this run; take that one with "
            f"tokenizer={folder}, or give another checkpoint"
        )
    made_with = model.backbone.made_with
    if found.encoder.name != made_with.name:
        raise DataError(
            f"{folder} has the encoder {found.encoder.name}; this run has {made_with.name}: give "
            f"encoder.name={found.encoder.name}"
        )
    try:
        model.load_state_dict(_weights(folder))
    except RuntimeError:
        own = asdict(model.options)
        odd = [f"{k} {v} (here {own.get(k)})" for k, v in found.options.items() if own.get(k) != v]
        raise DataError(
            f"{folder} does not fit this run's model: it has {', '.join(odd) or 'other layers'}; "
            "leave those keys away or train without init"
        ) from None


def same_tokenizer(one: str, other: str) -> bool:
    """Whether two tokenizer files mean the same, however they are spaced."""
    same: bool = json.loads(one) == json.loads(other)
    return same


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, torch.Tensor] = {}
    try:
        for shard in sorted(folder.glob("model-*.safetensors")):
            state |= load_file(shard)
    except (OSError, SafetensorError) as error:
        raise _no_checkpoint(folder, error) from None
    return {name: v.float() if v.is_floating_point() else v for name, v in state.items()}


def _no_checkpoint(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder} is no whole checkpoint ({error}); give a folder that `edgecap train` wrote"
    )


def save_state(
    folder: Path,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: TrainState,
    *,
    write: bool = True,
) -> None:
    """Write the training state after an epoch. Of sharded weights every process gives its part;
    one of them has ``write``."""
    from safetensors.torch import save_file

    moments = {
        f"{i}.{name}": value
        for i, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
    }
    files: dict[str, Mapping[str, torch.Tensor]] = {
        "weights": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": moments,
    }
    whole = {name: _clone(tensors) for name, tensors in files.items()}
    if not write:
        return
    with replacing(folder) as part:
        for name, tensors in whole.items():
            save_file(tensors, part / f"{name}.safetensors")
        (part / "state.json").write_text(json.dumps(asdict(state)))


def load_state(
    folder: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> TrainState | None:
    """Restore a state in place; None when there is none. Raises DataError for one that is damaged
    or of another model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    recover(folder)
    if not (folder / "state.json").exists():
        return None
    try:
        saved = json.loads((folder / "state.json").read_text())
        files = {
            name: load_file(folder / f"{name}.safetensors")
            for name in ("weights", "average", "optimizer")
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{folder} cannot be read ({error}); remove it to start this run anew"
        ) from None
    _restore(folder, model, files["weights"])
    _restore(folder, average, files["average"])
    parameters = _parameters(optimizer)
    optimizer.state.clear()
    for key, value in files["optimizer"].items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # In the parameter's own memory order: the fused step reads both as they lie.
            own = torch.zeros_like(parameter, dtype=value.dtype)
            assign(own, value)
            value = own
        optimizer.state[parameter][name] = value.to(parameter.device)
    known = {f.name for f in fields(TrainState)}
    return TrainState(**{name: value for name, value in saved.items() if name in known})


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _restore(folder: Path, module: nn.Module, saved: dict[str, torch.Tensor]) -> None:
    own = module.state_dict()
    odd = [
        name
        for name in {**own, **saved}
        if name not in own or name not in saved or full(own[name]).shape != saved[name].shape
    ]
    if odd:
        raise DataError(
            f"{folder} is the state of another model: {odd[0]} differs; give another folder for "
            "this run"
        )
    for name, value in saved.items():
        assign(own[name], value)


def _clone(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    whole = {name: full(value.detach()) for name, value in state.items()}
    return {
        name: value.clone(memory_format=torch.contiguous_format) for name, value in whole.items()
    }


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of ``folder`` at the end.

    Raises TrainingError where it cannot be written; ``folder`` is then as it was.
    """
    from safetensors import SafetensorError

    part, old = _beside(folder, "part"), _beside(folder, "old")
    try:
        recover(folder)
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            os.replace(folder, old)
        os.replace(part, folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        recover(folder)
        kept = "the one before it is kept" if folder.exists() else "there is none yet"
        raise TrainingError(
            f"{folder} could not be written ({error}); {kept}: make room and run the same again"
        ) from None


def recover(folder: Path) -> None:
    """Put back what an interruption between two renames left under its other name; for the one
    process that writes ``folder``."""
    old = _beside(folder, "old")
    if old.exists() and not folder.exists():
        os.replace(old, folder)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")
