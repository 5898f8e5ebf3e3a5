"""Where an imported captioner comes from: a folder or a hub id, and the pieces inside it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecap.export.importers.hub import fetch
from edgecap.runtime.errors import DataError, EdgeCapError
from edgecap.training.models.encoders.transformers_encoder import need_transformers, quiet

TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Source:
    """A folder that holds a captioner.

    given : what the user typed, for messages
    folder : where it is
    config : its ``config.json``
    max_new_tokens : the longest caption asked for; the source's own limit where None
    branch : of the hub, where it is not the main one
    """

    given: str
    folder: Path
    config: dict[str, Any]
    max_new_tokens: int | None = None
    branch: str = ""

    @property
    def name(self) -> str:
        """Letters, digits, '.', '_' and '-' alone."""
        last = self.given.rstrip("/").rpartition("/")[2] or self.folder.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-.") or "imported"

    def load(self, kind: Any, folder: Path | None = None, **options: Any) -> Any:
        """A transformers model of class ``kind`` in float32 from safetensors.

        Raises DataError where it does not load, or where a weight is missing.
        """
        import torch

        folder = folder or self.folder
        check_weights(self.given, folder)
        transformers = need_transformers("import")
        try:
            with quiet(transformers.logging):
                model, report = kind.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                    **options,
                )
        except EdgeCapError:
            raise
        except Exception as error:  # the package raises many kinds on wrong files
            raise DataError(f"{self.given} does not load: {_line(error)}") from None
        missing = sorted(report["missing_keys"])
        if missing:
            raise DataError(
                f"{self.given} lacks {len(missing)} weights of {kind.__name__}, the first is "
                f"{missing[0]}; give the whole model"
            )
        return model.eval()

    def image_processor(self, folder: Path | None = None) -> Any:
        """Its image processor, in the implementation that resizes by Pillow."""
        transformers = need_transformers("import")
        folder = folder or self.folder
        names = ("preprocessor_config.json", "processor_config.json")
        if not any((folder / name).is_file() for name in names):
            raise DataError(
                f"{self.given} has no preprocessor_config.json, so how its pictures are resized is "
                "unknown; add the one that it was trained with"
            )
        try:
            with quiet(transformers.logging):
                return transformers.AutoImageProcessor.from_pretrained(
                    folder, backend="pil", local_files_only=True, trust_remote_code=False
                )
        except Exception as error:
            raise DataError(f"the image processor of {self.given}: {_line(error)}") from None

    def tokenizer(self, folder: Path | None = None) -> Any:
        """Its tokenizer, a slow one turned into a fast one."""
        transformers = need_transformers("import")
        folder = folder or self.folder
        if not any((folder / name).is_file() for name in TOKENIZERS):
            raise DataError(
                f"{self.given} has no tokenizer; add its tokenizer.json, vocab.json with "
                "merges.txt, or vocab.txt"
            )
        try:
            with quiet(transformers.logging):
                return transformers.AutoTokenizer.from_pretrained(
                    folder, use_fast=True, local_files_only=True, trust_remote_code=False
                )
        except Exception as error:
            raise DataError(f"the tokenizer of {self.given}: {_line(error)}") from None

    def licence(self) -> str:
        """What the model card states, else the first line of its licence file, else nothing."""
        from huggingface_hub import ModelCard

        readme = self.folder / "README.md"
        if readme.is_file():
            try:
                stated = ModelCard(readme.read_text(errors="replace")).data.get("license")
            except Exception:  # a card that is no card says nothing
                stated = None
            if stated:
                return str(stated)
        for file in sorted(self.folder.glob("LICENSE*")):
            lines = [line.strip() for line in file.read_text(errors="replace").splitlines()]
            if any(lines):
                return next(line for line in lines if line)
        return ""


def find_source(given: str, max_new_tokens: int | None = None) -> Source:
    """The folder of a path or a hub id, with its ``config.json``. Raises DataError."""
    folder = Path(given)
    if folder.is_file():
        raise DataError(f"{given} is a file; give the folder of a transformers model, or a hub id")
    branch = ""
    if not folder.is_dir():
        folder, branch = fetch(given)
    path = folder / "config.json"
    if not path.is_file():
        raise DataError(
            f"{given} has no config.json, so it is no transformers model; give the folder that "
            "save_pretrained wrote, or a hub id"
        )
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); fetch the model again") from None
    if not isinstance(config, dict):
        raise DataError(f"{path} is no configuration; fetch the model again")
    return Source(given, folder, config, max_new_tokens, branch)


def check_weights(given: str, folder: Path) -> None:
    """Raises DataError for a folder without safetensors."""
    if any(folder.glob("*.safetensors")):
        return
    others = [file.name for pattern in PICKLED for file in folder.glob(pattern)]
    if others:
        raise DataError(
            f"{given} has its weights in {others[0]} alone, which may hold code; only safetensors "
            "are read: save it again by transformers' save_pretrained"
        )
    raise DataError(f"{given} has no weights; give a folder with model.safetensors")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def one_of(names: Sequence[str]) -> str:
    """A list in words."""
    return ", ".join(names)
