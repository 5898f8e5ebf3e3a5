"""A trainer on the small project, for tests of steps and of several processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import small_encoder  # noqa: F401
import torch

from edgecap.training.corpus import build_corpus, read_images
from edgecap.training.distributed import World
from edgecap.training.models import make_model
from edgecap.training.recipe import Recipe
from edgecap.training.run import make_tokenizer, recipe_cache, validation
from edgecap.training.trainer import Trainer


def make_trainer(
    recipe: Recipe,
    folder: Path,
    cache: Path,
    *,
    dropout: float = 0.0,
    guard: Callable[[dict[str, float]], str | None] | None = None,
    world: World | None = None,
    **changes: object,
) -> Trainer:
    """Captions have two to nine words, so that parts of a batch differ in words."""
    images = [
        replace(image, captions=(f"{image.captions[0]}{' and on' * (i % 3)}", "a wall"))
        for i, image in enumerate(read_images(recipe.train))
    ]
    tokenizer = make_tokenizer(recipe, images)
    torch.manual_seed(1)
    model = make_model(
        recipe.family,
        recipe.encoder,
        {**recipe.model, "dropout": dropout, "vocab_size": tokenizer.get_vocab_size()},
    )
    model.backbone.to(memory_format=torch.channels_last)
    held = read_images(recipe.validation)
    val = recipe_cache(recipe, model, cache / "val", held, views=1, world=world)
    return Trainer(
        model,
        tokenizer.to_str(),
        build_corpus(images, tokenizer, 2, 8),
        recipe_cache(recipe, model, cache / "train", images, views=2, world=world),
        validation(recipe, tokenizer.to_str(), val),
        replace(recipe.options, **changes),
        folder,
        guard=guard,
        world=world,
    )


def clip_gpt(recipe: Recipe) -> Recipe:
    """The same with a family of language model layers."""
    sizes = {"width": 24, "layers": 2, "heads": 2, "prefix": 2, "max_positions": 8, "dropout": 0.0}
    return replace(recipe, family="clip-gpt", model=sizes)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    """What the first step's gradients are before they are clipped; sharded ones gathered."""
    from edgecap.training.distributed import full

    trainer.model.train()
    trainer.gradients([(trainer._to_device(b), share) for b, share in trainer._read(0)])
    return {
        name: full(parameter.grad).clone(memory_format=torch.contiguous_format)
        for name, parameter in trainer.model.named_parameters()
        if parameter.grad is not None
    }
