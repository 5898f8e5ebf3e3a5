"""Captioners made elsewhere: a local folder or a hub id becomes a module ready for export.

    from edgecap.export.importers import open_source
    imported = open_source("nlpconnect/vit-gpt2-image-captioning")

One file a family; ``IMPORTERS`` says which ``config.json`` belongs to which. A new family is a new
file here with ``load(source) -> Imported``, and a line in the table.
"""

from __future__ import annotations

import importlib

from edgecap.export.importers.base import Imported
from edgecap.export.importers.source import check_weights, find_source, one_of
from edgecap.runtime.errors import DataError

# model_type of config.json -> its module and its architecture.
IMPORTERS = {
    "vision-encoder-decoder": (
        "edgecap.export.importers.vision_encoder_decoder",
        "VisionEncoderDecoderModel",
    ),
    "blip": ("edgecap.export.importers.blip", "BlipForConditionalGeneration"),
    "git": ("edgecap.export.importers.git", "GitForCausalLM"),
    "clip-prefix": ("edgecap.export.importers.clip_prefix", "ClipPrefix"),
}

__all__ = ["IMPORTERS", "Imported", "open_source"]


def open_source(source: str, *, max_new_tokens: int | None = None) -> Imported:
    """Read a captioner from a local folder, or from the hub by its id.

    source : a folder that transformers' ``save_pretrained`` wrote, or a hub id (owner/name)
    max_new_tokens : T, the longest caption; the source's own limit where None

    Only safetensors are read, and no code that comes with a model is ever run.

    Raises DataError for a source that is not there, lacks a part or is of another kind, and
    MissingExtraError without the package transformers.
    """
    found = find_source(source, max_new_tokens)
    if max_new_tokens is not None and max_new_tokens < 1:
        raise DataError(f"max_new_tokens is {max_new_tokens}; give 1 or more")
    kind = str(found.config.get("model_type"))
    architectures = found.config.get("architectures") or []
    module, architecture = IMPORTERS.get(kind, ("", ""))
    if not module or (architectures and architecture not in architectures):
        supported = one_of([f"{name} ({wanted[1]})" for name, wanted in IMPORTERS.items()])
        raise DataError(
            f"{source} is {kind} ({one_of(architectures) or 'no architecture'}); supported are "
            f"{supported}. A family is added as a file in export/importers"
        )
    if kind != "clip-prefix":  # whose weights are in folders of their own
        check_weights(source, found.folder)
    imported: Imported = importlib.import_module(module).load(found)
    return imported
