"""Quantisation-aware fine-tuning: the float model teaches the one that ships.

The frozen half is quantised first and its integer graph fills the cache; the weights of everything
after it are rounded to int8 in the forward pass while their gradients pass straight through (Bengio
et al. 2013; Jacob et al. 2018), and the loss is the distance to the float model's distributions.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer as HfTokenizer
from torch import nn
from torch.nn.utils import parametrize

from edgecap.export.quantize import SMALLEST, QuantizeOptions
from edgecap.export.quantized_trunk import QuantizedTrunk, calibration_pictures, quantize_trunk
from edgecap.runtime.errors import DataError, OptionsError
from edgecap.training.augment import AugmentOptions
from edgecap.training.checkpoint import load_model
from edgecap.training.config import decode_yaml, override, resolve
from edgecap.training.corpus import build_corpus, read_images
from edgecap.training.data import CaptionedImage
from edgecap.training.models import make_model
from edgecap.training.models.base import CaptionModel
from edgecap.training.objectives import Distillation, DistillationOptions, Objective
from edgecap.training.recipe import Recipe
from edgecap.training.run import held_images, recipe_cache, validation
from edgecap.training.run_folder import kept_epochs
from edgecap.training.self_critical import CollapseGuard, SelfCritical, SelfCriticalOptions
from edgecap.training.trainer import Trainer, TrainOptions
from edgecap.training.validate import broken_tokens

if TYPE_CHECKING:
    import onnx

CONFIGS = Path(__file__).parent / "configs"


class RoundToInt8(nn.Module):
    """Symmetric int8 with a scale for each slice along the first axis, as the bundle stores it.

    axes : what is reduced for the scale; all but the first for kernels and matrices of Linear, the
        first alone for what is added as it stands
    """

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        scale = weight.detach().abs().amax(self.axes, keepdim=True) / 127
        scale = torch.where(scale == 0, torch.ones_like(scale), scale)
        rounded = (weight.detach() / scale).round() * scale
        return weight + (rounded - weight.detach())


def round_weights(model: CaptionModel) -> int:
    """Round what the bundle will store as int8, in place; returns how many tensors that are."""
    count = 0
    for owner in list(model.modules()):
        for name, value in list(owner.named_parameters(recurse=False)):
            if value.ndim not in (2, 4) or value.numel() < SMALLEST:
                continue
            layer = isinstance(owner, (nn.Linear, nn.Conv2d, nn.Embedding))
            axes = tuple(range(1, value.ndim)) if layer else (0,)
            parametrize.register_parametrization(owner, name, RoundToInt8(axes))
            count += 1
    return count


def with_plain_weights(model: CaptionModel) -> CaptionModel:
    """A new model with the unrounded weights under their usual names.

    Made anew, because copies of a parametrised module share its class: taking the parametrisation
    off one of them would take it off all.
    """
    options = {f.name: getattr(model.options, f.name) for f in fields(model.options)}
    plain = make_model(model.family, model.backbone.made_with, options, pretrained=False)
    state = {
        name.replace("parametrizations.", "").removesuffix(".original"): value
        for name, value in model.state_dict().items()
    }
    plain.load_state_dict(state)
    return plain.eval()


@dataclass(frozen=True)
class FineTuneOptions:
    """How long, how hard and towards what.

    distillation, self_critical : the objective, one of them: the float model's distributions, or
        CIDEr-D of what the rounded model says
    augment : of the pictures' views; the recipe's without it
    """

    train: TrainOptions
    distillation: DistillationOptions | None = None
    self_critical: SelfCriticalOptions | None = None
    quantize: QuantizeOptions = field(default_factory=lambda: QuantizeOptions(static=True))
    augment: AugmentOptions | None = None
    calibration_images: int = 128
    views: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.distillation is None) == (self.self_critical is None):
            raise OptionsError("give one of distillation and self_critical")


def read_options(name: str, values: Sequence[str] = ()) -> FineTuneOptions:
    """Options by their name in ``export/configs`` or by path, with KEY=VALUE on top."""
    path = CONFIGS / f"{name}.yaml"
    if not path.exists():
        path = Path(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.yaml")))
        raise DataError(f"no configuration {name!r}; give one of {known}, or a path to a YAML file")
    tree = override(decode_yaml(path.read_text(), path), FineTuneOptions, values)
    return resolve(tree, FineTuneOptions, str(path))


def fine_tune(
    checkpoint: Path,
    recipe: Recipe,
    folder: Path,
    cache: Path,
    options: FineTuneOptions,
    threads: int,
) -> Path:
    """Fine-tune ``checkpoint`` for int8 in ``folder``; resumable. Returns the best checkpoint.

    cache : holds the integer trunk's features ("int8-train", "int8-val") and, for distillation,
        the float ones ("train"); what is missing is computed
    """
    torch.set_num_threads(threads)
    torch.manual_seed(options.seed)
    if options.augment is not None:
        recipe = replace(recipe, augment=options.augment)
    start, tokenizer_json, _ = load_model(checkpoint)
    start.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    student = copy.deepcopy(start)
    images, held = read_images(recipe.train), held_images(recipe)
    trunk = QuantizedTrunk(_trunk(start, images, folder / "trunk.onnx", options), threads)
    source = f"int8 {options.quantize}"
    quantised = {
        name: recipe_cache(
            recipe, student, cache / f"int8-{name}", part, views=views, frozen=(trunk, source)
        )
        for name, part, views in (("train", images, options.views), ("val", held, 1))
    }
    round_weights(student)
    tokenizer = HfTokenizer.from_str(tokenizer_json)
    corpus = build_corpus(images, tokenizer, recipe.captions, student.options.max_positions)
    smoothing = options.train.label_smoothing
    objective: Objective
    guard = None
    if options.self_critical is not None:
        before = copy.deepcopy(start) if options.self_critical.kl > 0 else None
        objective = SelfCritical(
            corpus.tokens,
            options.self_critical,
            smoothing=smoothing,
            start=before,
            broken=broken_tokens(tokenizer_json),
        )
        guard = CollapseGuard()
    else:
        assert options.distillation is not None
        seen = recipe_cache(recipe, start, cache / "train", images, views=options.views)
        objective = Distillation(start, seen, options.distillation, smoothing)
    trainer = Trainer(
        student,
        tokenizer_json,
        corpus,
        quantised["train"],
        validation(recipe, tokenizer_json, quantised["val"]),
        options.train,
        folder,
        objective,
        publish=with_plain_weights,
        guard=guard,
        score_first=guard is not None,
    )
    trainer.run()
    for checkpoint in (folder / "best", *kept_epochs(folder)):
        _say_how(checkpoint, options.quantize)
    return folder / "best"


def _say_how(checkpoint: Path, options: QuantizeOptions) -> None:
    """Write into the checkpoint what it was fine-tuned for; the export does just that."""
    path = checkpoint / "model.json"
    description = json.loads(path.read_text())
    description["meta"]["quantize"] = asdict(options)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(description, indent=1))
    os.replace(part, path)


def _trunk(
    model: CaptionModel, images: Sequence[CaptionedImage], path: Path, options: FineTuneOptions
) -> onnx.ModelProto:
    import onnx

    if path.exists():
        return onnx.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = calibration_pictures(
        images,
        model.image_size,
        options.calibration_images,
        options.seed,
    )
    proto = quantize_trunk(model, pictures, options.quantize)
    onnx.save(proto, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)
    return proto
