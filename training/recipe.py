"""A training run as a YAML file: data, model and schedule, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import DataError
from edgecap.runtime.manifest import DataEntry
from edgecap.training.augment import AugmentOptions
from edgecap.training.corpus import SplitSpec
from edgecap.training.models.encoders.base import EncoderOptions
from edgecap.training.trainer import TrainOptions


@dataclass(frozen=True)
class Recipe:
    """``model`` holds the family's own options; the vocabulary's size is added when it is known."""

    train: list[SplitSpec]
    validation: list[SplitSpec]
    model: dict[str, Any]
    family: str = "image-transformer"
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    options: TrainOptions = field(default_factory=TrainOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    min_count: int = 4
    captions: int = 5
    views: int = 5
    cache_seed: int = 1
    decoding: dict[str, Any] = field(default_factory=dict)  # the bundle's defaults
    licence: str = ""  # of the weights
    training_data: list[DataEntry] = field(default_factory=list)


CONFIGS = Path(__file__).parent / "configs"


def read_recipe(name: str, data: str, weights: str) -> Recipe:
    """Read a recipe by its name in ``training/configs`` or by path.

    data, weights : what DATA and WEIGHTS in the file stand for
    """
    import msgspec

    path = CONFIGS / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise DataError(f"no recipe {name!r}; give one of {known}, or a path to a YAML file")
    text = path.read_text().replace("DATA/", f"{data}/").replace("WEIGHTS/", f"{weights}/")
    try:
        return msgspec.yaml.decode(text, type=Recipe)
    except (msgspec.ValidationError, msgspec.DecodeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from None
