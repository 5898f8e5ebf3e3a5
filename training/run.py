"""One training run from a recipe: vocabulary, caches, trainer. Resumable at every stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from edgecap.runtime.text import Tokenizer
from edgecap.training.corpus import build_corpus, read_images, training_captions
from edgecap.training.curves import plot_log
from edgecap.training.data import CaptionedImage
from edgecap.training.features import FeatureCache, FrozenHalf, build_cache
from edgecap.training.models import CaptionModel, make_model
from edgecap.training.recipe import Recipe
from edgecap.training.trainer import Trainer
from edgecap.training.validate import SUPPRESSED, Validation
from edgecap.training.vocabulary import EOS, build_word_tokenizer


def train(recipe: Recipe, folder: Path, cache: Path, threads: int) -> Path:
    """Run ``recipe`` in ``folder``; a run that was interrupted goes on. Returns the best model."""
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.options.seed)
    images, held = read_images(recipe.train), held_images(recipe)
    tokenizer = build_word_tokenizer(
        (text for image in images for text in training_captions(image)), recipe.min_count
    )
    model = make_model(
        recipe.family,
        recipe.encoder,
        {"vocab_size": tokenizer.get_vocab_size(), **recipe.model},
    )
    # Convolutions of a CPU run channels last twice as fast in bfloat16.
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    validation_cache = recipe_cache(recipe, model, cache / "val", held, views=1)
    trainer = Trainer(
        model,
        tokenizer.to_str(),
        build_corpus(images, tokenizer, recipe.captions, model.options.max_positions),
        recipe_cache(recipe, model, cache / "train", images, views=recipe.views),
        validation(recipe, tokenizer.to_str(), validation_cache),
        recipe.options,
        folder,
    )
    trainer.run()
    plot_log(folder / "log.jsonl", folder / "curves.png")
    return folder / "best"


def held_images(recipe: Recipe) -> list[CaptionedImage]:
    """The pictures of every validation list, one after the other."""
    return [image for spec in recipe.validation for image in read_images([spec])]


def validation(recipe: Recipe, tokenizer_json: str, cache: FeatureCache) -> Validation:
    """Captions the recipe's validation lists from their cached features."""
    parts = [(spec, read_images([spec])) for spec in recipe.validation]
    return Validation(
        [image for _, part in parts for image in part],
        cache,
        Tokenizer(tokenizer_json.encode(), special=(*SUPPRESSED, EOS)),
        tuple((Path(spec.data.partition(":")[2]).name, len(part)) for spec, part in parts),
    )


def recipe_cache(
    recipe: Recipe,
    model: CaptionModel,
    folder: Path,
    images: Sequence[CaptionedImage],
    *,
    views: int,
    frozen: tuple[FrozenHalf, str] | None = None,
) -> FeatureCache:
    """The recipe's cache of ``images`` in ``folder``; what is missing of it is computed.

    frozen : what computes it and its name, in place of the model's own frozen half
    """
    encoder = recipe.encoder
    source = f"{encoder.name} {Path(encoder.weights).name} tuned from {encoder.tuned_from}"
    model.eval()
    half, kind = frozen or (model.frozen, "")
    return build_cache(
        folder,
        [image.path for image in images],
        half,
        image_size=model.image_size,
        source=f"{source} {kind}".strip(),
        views=views,
        seed=recipe.cache_seed if views > 1 else 0,
        augment=recipe.augment,
    )
