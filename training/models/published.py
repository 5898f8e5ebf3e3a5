"""Published weights from a file, a folder or a hub id: safetensors, or state dicts without code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from edgecap.runtime.errors import DataError, MissingExtraError

# What a hub id looks like; anything else that is not there is a path with a mistake.
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
# In a folder or on the hub the first of these that exists is read.
FILES = ("model.safetensors", "pytorch_model.bin")


def read_state(weights: str) -> dict[str, torch.Tensor]:
    """Name -> tensor of published weights, on the CPU. Nothing is ever unpickled but tensors.

    Raises DataError where there is nothing to read, or no network to read it from.
    """
    path = Path(weights)
    if path.is_dir():
        found = _folder_files(path)
        if not found:
            raise DataError(
                f"{path} holds no weights; give a folder with {FILES[0]}, a file or a hub id"
            )
    elif path.is_file():
        found = [path]
    else:
        fetched = _from_hub(weights, FILES)
        if fetched is None:
            raise DataError(f"{weights} has no {' or '.join(FILES)} on the hub; give a folder")
        found = [fetched]
    state: dict[str, torch.Tensor] = {}
    for file in found:
        state |= _read_file(file)
    return state


def read_config(weights: str, name: str = "config.json") -> dict[str, Any]:
    """The JSON file ``name`` beside published weights; empty where there is none."""
    path: Path | None = Path(weights)
    if path and path.exists():
        path = (path if path.is_dir() else path.parent) / name
    else:
        path = _from_hub(weights, (name,))
    if path is None or not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); fetch the weights again") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} is no configuration; fetch the weights again")
    return config


def match(
    state: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], weights: str
) -> dict[str, torch.Tensor]:
    """The tensors of ``state`` that ``wanted`` names; counters of batches may be absent.

    Raises DataError where one is missing or has another shape.
    """
    found = {}
    for name, tensor in wanted.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):
                continue
            raise DataError(f"{weights} is not this network: it has no {name}")
        given, expected = list(state[name].shape), list(tensor.shape)
        if given != expected:
            raise DataError(
                f"{weights} is of another size: {name} is {given}, here {expected}; "
                "give settings that fit the weights"
            )
        found[name] = state[name]
    return found


def _folder_files(folder: Path) -> list[Path]:
    for name in FILES:
        if (folder / name).is_file():
            return [folder / name]
    # Large models come in parts; their names do not overlap.
    for pattern in ("model-*.safetensors", "*.safetensors", "*.bin", "*.pth", "*.pt"):
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _read_file(path: Path) -> dict[str, torch.Tensor]:
    import pickle

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else "unknown reason"
        raise DataError(
            f"{path} cannot be read as tensors ({reason}); give safetensors, or a state dict"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise DataError(f"{path} is no state dict; give safetensors, or a file of named tensors")
    return state


def _from_hub(weights: str, names: tuple[str, ...]) -> Path | None:
    """The first of ``names`` that the hub's repository has, from the local cache if it can be."""
    if not HUB_ID.fullmatch(weights):
        raise DataError(f"no weights at {weights}; give a file, a folder or a hub id (owner/name)")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, RemoteEntryNotFoundError
    except ImportError:
        raise MissingExtraError(
            f"{weights} is no local folder, and the hub needs huggingface_hub; "
            "install edgecap[train], or give a folder"
        ) from None
    for name in names:
        try:
            return Path(hf_hub_download(weights, name))
        except RemoteEntryNotFoundError:
            continue
        except (OSError, ValueError, EntryNotFoundError):
            raise DataError(
                f"{weights} is no local file or folder, and the hub did not give it; "
                f"download the repository and give its folder"
            ) from None
    return None
