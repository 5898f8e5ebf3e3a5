"""One training run from a recipe: vocabulary, caches, trainer. Resumable at every stage."""

from __future__ import annotations

from pathlib import Path

import torch

from edgecap.runtime.text import Tokenizer
from edgecap.training.corpus import build_corpus, read_images, training_captions
from edgecap.training.curves import plot_log
from edgecap.training.features import build_cache
from edgecap.training.models.image_transformer import ImageTransformer, ImageTransformerOptions
from edgecap.training.recipe import Recipe
from edgecap.training.trainer import Trainer
from edgecap.training.validate import SUPPRESSED, Validation
from edgecap.training.vocabulary import EOS, build_word_tokenizer


def train(recipe: Recipe, folder: Path, cache: Path, threads: int) -> Path:
    """Run ``recipe`` in ``folder``; a run that was interrupted goes on. Returns the best model."""
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.options.seed)
    images = read_images(recipe.train)
    held = [(spec, read_images([spec])) for spec in recipe.validation]
    tokenizer = build_word_tokenizer(
        (text for image in images for text in training_captions(image)), recipe.min_count
    )
    model = ImageTransformer(
        ImageTransformerOptions(vocab_size=tokenizer.get_vocab_size(), **recipe.model)
    )
    model.backbone.load_pretrained(recipe.backbone)
    # Convolutions of a CPU run channels last twice as fast in bfloat16.
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    held_images = [image for _, part in held for image in part]
    model.eval()
    validation_cache = build_cache(
        cache / "val", [i.path for i in held_images], model, views=1, seed=0, augment=recipe.augment
    )
    training_cache = build_cache(
        cache / "train",
        [i.path for i in images],
        model,
        views=recipe.views,
        seed=recipe.cache_seed,
        augment=recipe.augment,
    )
    text = tokenizer.to_str()
    trainer = Trainer(
        model,
        text,
        build_corpus(images, tokenizer, recipe.captions, model.options.max_positions),
        training_cache,
        Validation(
            held_images,
            validation_cache,
            Tokenizer(text.encode(), special=(*SUPPRESSED, EOS)),
            tuple((Path(spec.data.partition(":")[2]).name, len(part)) for spec, part in held),
        ),
        recipe.options,
        folder,
    )
    trainer.run()
    plot_log(folder / "log.jsonl", folder / "curves.png")
    return folder / "best"
