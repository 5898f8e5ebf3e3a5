"""Caption models by family; a module is imported when its family is asked for."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

from edgecap.runtime.errors import DataError
from edgecap.training.models.base import CaptionModel
from edgecap.training.models.encoders import EncoderOptions, make_encoder

# Family -> (module, model class, options class).
FAMILIES = {
    "image-transformer": (
        "edgecap.training.models.image_transformer",
        "ImageTransformer",
        "ImageTransformerOptions",
    ),
    "show-and-tell": (
        "edgecap.training.models.show_and_tell",
        "ShowAndTell",
        "ShowAndTellOptions",
    ),
    "show-attend-tell": (
        "edgecap.training.models.show_attend_tell",
        "ShowAttendTell",
        "ShowAttendTellOptions",
    ),
    "clip-gpt": (
        "edgecap.training.models.clip_gpt",
        "ClipGpt",
        "ClipGptOptions",
    ),
}

__all__ = ["FAMILIES", "CaptionModel", "make_model"]


def make_model(
    family: str, encoder: EncoderOptions, options: dict[str, Any], *, pretrained: bool = True
) -> CaptionModel:
    """Build a model of ``family``. options : fields of the family's options, vocab_size included.

    Raises DataError for an unknown family or field, with the names there are.
    """
    if family not in FAMILIES:
        raise DataError(f"unknown family {family!r}; give one of {', '.join(FAMILIES)}")
    module_name, model_name, options_name = FAMILIES[family]
    module = importlib.import_module(module_name)
    kind = getattr(module, options_name)
    known = [f.name for f in fields(kind)]
    odd = [name for name in options if name not in known]
    if odd:
        raise DataError(f"{family} has no option {odd[0]!r}; it has {', '.join(known)}")
    model: CaptionModel = getattr(module, model_name)(
        kind(**options), make_encoder(encoder, pretrained=pretrained)
    )
    return model
