"""A training run as a YAML file: data, model and schedule, checked before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import DataError
from edgecap.runtime.manifest import DataEntry
from edgecap.training.augment import AugmentOptions
from edgecap.training.config import decode_yaml, merge, override, resolve
from edgecap.training.corpus import SplitSpec
from edgecap.training.data import dataset_splits
from edgecap.training.models import FAMILIES
from edgecap.training.models.encoders import ENCODERS, EncoderOptions
from edgecap.training.objectives import DistillationOptions
from edgecap.training.options import TrainOptions
from edgecap.training.pseudo_captions import PseudoCaptionOptions
from edgecap.training.self_critical import SelfCriticalOptions

CONFIGS = Path(__file__).parent / "configs"
# Encoder -> the folder of its published weights below --weights.
PUBLISHED = {
    "mobilenet-edgetpu": "mobilenet_edgetpu_100",
    "mobilenet-v2": "mobilenet_v2_1.0_224",
}
HELD = 20  # every so many pictures validate where a data set has no list for it


@dataclass(frozen=True)
class DistillationRecipe(DistillationOptions):
    """``teacher`` is a checkpoint folder with the run's tokenizer."""

    teacher: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.teacher:
            raise DataError("distillation has no teacher; give distillation.teacher=CHECKPOINT")


@dataclass(frozen=True)
class Recipe:
    """``model`` holds the family's own options; the vocabulary's size is added when it is known.

    views : of each picture in the feature cache; 0 makes none: every time a picture comes it is a
        new view, and the frozen half is computed then
    init : a checkpoint folder to start from; its tokenizer is the run's
    tokenizer : a checkpoint folder or a tokenizer.json; made of the training captions if empty
    distillation, self_critical : the objective, in place of cross-entropy
    pseudo_captions : a teacher's caption of every training picture, beside people's
    """

    train: list[SplitSpec]
    validation: list[SplitSpec]
    model: dict[str, Any] = field(default_factory=dict)
    family: str = "image-transformer"
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    options: TrainOptions = field(default_factory=TrainOptions)
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    min_count: int = 4
    captions: int = 5
    views: int = 5
    cache_seed: int = 1
    init: str = ""
    tokenizer: str = ""
    distillation: DistillationRecipe | None = None
    self_critical: SelfCriticalOptions | None = None
    pseudo_captions: PseudoCaptionOptions | None = None
    decoding: dict[str, Any] = field(default_factory=dict)  # the bundle's defaults
    about: str = ""  # the first paragraph of the model card
    licence: str = ""  # of the weights
    training_data: list[DataEntry] = field(default_factory=list)

    def __post_init__(self) -> None:
        for what, name, known in (
            ("family", self.family, FAMILIES),
            ("encoder", self.encoder.name, ENCODERS),
        ):
            if name not in known:
                raise DataError(f"unknown {what} {name!r}; give one of {', '.join(known)}")
        if not self.train or not self.validation:
            raise DataError("a recipe needs at least one list in train and one in validation")
        for name, least in (("min_count", 1), ("captions", 1), ("views", 0)):
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; give {least} or more")
        if self.distillation and self.self_critical:
            raise DataError("distillation and self_critical are two objectives; give one of them")


def read_recipe(
    name: str, data: str, weights: str, *, config: Path | None = None, values: Sequence[str] = ()
) -> Recipe:
    """Read a recipe by its name in ``training/configs`` or by path.

    data, weights : what DATA and WEIGHTS in the file stand for
    config : a YAML file with keys that replace the recipe's
    values : "key=value" with dotted keys, on top of all
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise DataError(
            f"no recipe {name!r}; give one of {known}, a path to a YAML file, or a family: "
            f"{', '.join(FAMILIES)}"
        )
    tree = merge(_read_tree(path, data, weights), _config(config))
    return resolve(override(tree, Recipe, values), Recipe, str(path))


def _read_tree(path: Path, data: str, weights: str) -> dict[str, Any]:
    """A recipe's keys over those of the file of ``configs`` that it extends, if it names one."""
    text = path.read_text()
    for word, place, option in (("DATA/", data, "--data"), ("WEIGHTS/", weights, "--weights")):
        if word in text and not place:
            raise DataError(f"{path} names files below {word[:-1]}; give {option} FOLDER")
        text = text.replace(word, f"{place}/")
    tree = decode_yaml(text, path)
    name = tree.pop("extends", None)
    if name is None:
        return tree
    base = CONFIGS / f"{name}.yaml"
    if not base.is_file() or base == path:
        raise DataError(f"{path} extends {name!r}, which is not in {CONFIGS}")
    return merge(_read_tree(base, data, weights), tree)


def family_recipe(
    family: str,
    data: Sequence[str],
    weights: str = "",
    *,
    config: Path | None = None,
    values: Sequence[str] = (),
) -> Recipe:
    """The family's defaults on data sets NAME:FOLDER.

    The training lists of all are learned; the validation list of the first chooses the checkpoint.
    A set without one holds back every twentieth picture.

    weights : folder of published weights, or the encoder's own; without any the whole encoder is
        trained from a random start
    """
    if not data:
        raise DataError(f"no data to train {family} on; give --data NAME:FOLDER")
    path = CONFIGS / "families" / f"{family}.yaml"
    tree = decode_yaml(path.read_text(), path) if path.exists() else {}
    found = [_lists(spec) for spec in data]
    lists = {
        "train": [part for train, _ in found for part in train],
        "validation": [part for _, held in found for part in held],
    }
    tree = merge(merge(tree, {"family": family, **lists}), _config(config))
    tree = override(tree, Recipe, values)
    _add_weights(tree, weights)
    return resolve(tree, Recipe, f"edgecap train {family}")


def _config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    if not path.is_file():
        raise DataError(f"no file {str(path)!r}; give a YAML file with keys of a recipe")
    return decode_yaml(path.read_text(), path)


def _lists(data: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Training and validation lists of a data set, as a recipe names them."""
    splits = dataset_splits(data)
    train = [s for s in splits if s.startswith(("train", "restval"))]
    held = [s for s in splits if s.startswith(("val", "dev"))]
    train = train or [s for s in splits if s not in held and not s.startswith("test")]
    if not train:
        raise DataError(
            f"{data} has no training list, only {', '.join(splits)}; name one in --config"
        )
    if held:
        return [{"data": data, "split": s} for s in train], [{"data": data, "split": held[0]}]
    cut = {"data": data, "split": train[0], "every": HELD}
    rest: list[dict[str, Any]] = [{"data": data, "split": s} for s in train[1:]]
    return [{**cut, "part": "kept"}, *rest], [{**cut, "part": "held"}]


def _add_weights(tree: dict[str, Any], weights: str) -> None:
    """The encoder's published weights; what a random start needs where there are none."""
    encoder = tree.setdefault("encoder", {})
    if tree.get("init") and not encoder:
        from edgecap.training.checkpoint import describe

        made_with = describe(Path(tree["init"])).encoder
        encoder.update(name=made_with.name, weights=made_with.weights)
        encoder["tuned_from"] = made_with.tuned_from
    if encoder.get("weights") or tree.get("init"):
        return
    if weights:
        folder = Path(weights) / PUBLISHED.get(encoder.get("name", EncoderOptions().name), "")
        encoder["weights"] = str(folder) if folder.exists() else weights
        return
    encoder.setdefault("tuned_from", 0)
    tree.setdefault("options", {})["frozen_epochs"] = 0
