"""One training run from a recipe: vocabulary, caches, trainer. Resumable at every stage."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edgecap.runtime.errors import DataError, OptionsError
from edgecap.runtime.text import Tokenizer
from edgecap.training.checkpoint import describe, load_model, load_weights, same_tokenizer
from edgecap.training.config import Tree, decode_yaml, difference, resolve
from edgecap.training.corpus import Corpus, build_corpus, read_images, training_captions
from edgecap.training.curves import plot_log
from edgecap.training.data import CaptionedImage
from edgecap.training.distributed import World, joined
from edgecap.training.features import Features, FrozenHalf, build_cache
from edgecap.training.live_features import LiveFeatures
from edgecap.training.models import CaptionModel, make_model
from edgecap.training.objectives import Distillation, Objective
from edgecap.training.pseudo_captions import write_pseudo_captions
from edgecap.training.recipe import Recipe
from edgecap.training.screening import Part, screen
from edgecap.training.self_critical import CollapseGuard, SelfCritical
from edgecap.training.trainer import Guard, Trainer
from edgecap.training.validate import SUPPRESSED, Validation, broken_tokens
from edgecap.training.vocabulary import EOS, behind_specials, build_word_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HfTokenizer

# Keys that may differ when a run goes on: they change nothing that is learned.
FREE = ("licence", "about", "training_data", "decoding", "options.device", "options.events")


def train(recipe: Recipe, folder: Path, cache: Path, threads: int, *, strict: bool = False) -> Path:
    """Run ``recipe`` in ``folder``; a run that was interrupted goes on. Returns the best model.

    strict : raise DataError where the data has problems, in place of leaving pictures out
    """
    torch.set_num_threads(threads)
    with joined(recipe.options.device, recipe.options.parallel) as world:
        _train(recipe, folder, cache, threads, strict, world)
    return folder / "best"


def _train(
    recipe: Recipe, folder: Path, cache: Path, threads: int, strict: bool, world: World
) -> None:
    torch.manual_seed(recipe.options.seed)
    with world.first_first():
        keep_config(recipe, folder)
        kept = folder / "checks.json"
        lists = screen(recipe.train, recipe.validation, kept, strict=strict, threads=threads)
    tokenizer = make_tokenizer(recipe, lists.images)
    model = _make_model(recipe, tokenizer)
    # Convolutions of a CPU run channels last twice as fast in bfloat16.
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.to(world.device)
    held = [image for _, part in lists.validation for image in part]
    validation_cache = recipe_cache(recipe, model, cache / "val", held, views=1, world=world)
    corpus = build_corpus(
        lists.images,
        tokenizer,
        recipe.captions,
        model.options.max_positions,
        extra=_pseudo_captions(recipe, lists.images, folder, threads, lists.left_out, world),
        left_out=lists.left_out,
    )
    features = recipe_cache(
        recipe,
        model,
        cache / "train",
        lists.images,
        views=recipe.views,
        world=world,
        left_out=lists.left_out,
    )
    objective, guard = make_objective(
        recipe, model, tokenizer.to_str(), corpus, features, cache / "teacher", world
    )
    trainer = Trainer(
        model,
        tokenizer.to_str(),
        corpus,
        features,
        validation(recipe, tokenizer.to_str(), validation_cache, lists.validation),
        recipe.options,
        folder,
        objective,
        guard=guard,
        world=world,
        score_first=bool(recipe.init),
    )
    trainer.run()
    if world.first:
        plot_log(folder / "log.jsonl", folder / "curves.png")


def _make_model(recipe: Recipe, tokenizer: HfTokenizer) -> CaptionModel:
    """The recipe's model, from the checkpoint that it starts from if it names one."""
    size = {"vocab_size": tokenizer.get_vocab_size()}
    if not recipe.init:
        return make_model(recipe.family, recipe.encoder, {**recipe.model, **size})
    start = describe(Path(recipe.init))
    options = start.options if start.family == recipe.family else {}
    encoder = recipe.encoder
    if encoder.name == start.encoder.name:
        encoder = replace(encoder, settings=start.encoder.settings | encoder.settings)
    made = {**options, **recipe.model, **size}
    model = make_model(recipe.family, encoder, made, pretrained=False)
    load_weights(model, tokenizer.to_str(), Path(recipe.init))
    return model


def keep_config(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe to ``config.yaml``. Raises OptionsError where the folder holds a
    run of another one that has finished an epoch."""
    import msgspec

    path = folder / "config.yaml"
    new = _tree(recipe)
    if path.exists() and (folder / "state").exists():
        old = resolve(decode_yaml(path.read_text(), path), Recipe, str(path))
        found = difference(_tree(old), new, FREE)
        if found:
            key, before, now = found
            raise OptionsError(
                f"{folder} was started with {key} {before!r}, now it is {now!r}; give the same, "
                "or another folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.yaml.encode(new))


def _tree(recipe: Recipe) -> Tree:
    """Every key, defaults too: msgspec alone leaves out those that it did not set."""
    import msgspec

    tree: Tree = msgspec.to_builtins(asdict(recipe))
    return tree


def make_tokenizer(recipe: Recipe, images: Sequence[CaptionedImage]) -> HfTokenizer:
    """The tokenizer that the recipe names, that of the checkpoint it starts from, or a new one."""
    from tokenizers import Tokenizer as HfTokenizer

    if recipe.tokenizer:
        path = Path(recipe.tokenizer)
        path = path / "tokenizer.json" if path.is_dir() else path
        try:
            return behind_specials(path.read_text())
        except (OSError, UnicodeDecodeError, DataError) as error:
            raise DataError(f"{path} cannot be the tokenizer: {error}") from None
    if recipe.init:
        return HfTokenizer.from_str(describe(Path(recipe.init)).tokenizer_json)
    captions = (text for image in images for text in training_captions(image))
    return build_word_tokenizer(captions, recipe.min_count)


def make_objective(
    recipe: Recipe,
    model: CaptionModel,
    tokenizer_json: str,
    corpus: Corpus,
    features: Features,
    cache: Path,
    world: World,
) -> tuple[Objective | None, Guard | None]:
    """The recipe's objective, None for the family's own, and what guards it.

    features : what ``model``'s frozen half makes of the training pictures
    cache : folder for what the teacher's makes of them, where that is another one
    """
    if recipe.self_critical:
        if not recipe.init:
            raise OptionsError("self_critical goes on from a trained model; give init=CHECKPOINT")
        start = copy.deepcopy(model) if recipe.self_critical.kl > 0 else None
        objective = SelfCritical(
            corpus.tokens,
            recipe.self_critical,
            smoothing=recipe.options.label_smoothing,
            start=start,
            broken=broken_tokens(tokenizer_json),
        )
        return objective, CollapseGuard()
    if recipe.distillation is None:
        return None, None
    folder = Path(recipe.distillation.teacher)
    teacher, teacher_tokenizer, _ = load_model(folder)
    if not same_tokenizer(teacher_tokenizer, tokenizer_json):
        raise DataError(
            f"the teacher {folder} has another tokenizer than this run; take it with "
            f"tokenizer={folder}, or distil its captions with pseudo_captions.teacher={folder}"
        )
    teacher.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher.to(world.device)
    if not _same_frozen_half(model, teacher):
        features = recipe_cache(
            replace(recipe, encoder=teacher.backbone.made_with),
            teacher,
            cache,
            corpus.images,
            views=recipe.views,
            frozen=(teacher.frozen, f"of the checkpoint {_digest(folder)}"),
            world=world,
            left_out=sorted({*range(len(corpus.images))} - {*corpus.used.tolist()}),
        )
    options = recipe.distillation
    return Distillation(teacher, features, options, recipe.options.label_smoothing), None


def _same_frozen_half(one: CaptionModel, other: CaptionModel) -> bool:
    """Whether both make the same of a picture, bit by bit, so that they can share a cache."""
    if one.image_size != other.image_size:
        return False
    size, device = one.image_size, next(one.parameters()).device
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, size, size, 3), generator=generator, dtype=torch.uint8)
    with torch.inference_mode():
        a, b = one.frozen(pixels.to(device)), other.frozen(pixels.to(device))
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _pseudo_captions(
    recipe: Recipe,
    images: Sequence[CaptionedImage],
    folder: Path,
    threads: int,
    left_out: Sequence[int],
    world: World,
) -> list[str]:
    if recipe.pseudo_captions is None:
        return []
    with world.first_first():
        return write_pseudo_captions(
            images,
            recipe.pseudo_captions,
            folder / "pseudo_captions.jsonl",
            threads=threads,
            left_out=left_out,
            device=world.device,
        )


def held_images(recipe: Recipe) -> list[CaptionedImage]:
    """The pictures of every validation list, one after the other."""
    return [image for spec in recipe.validation for image in read_images([spec])]


def validation(
    recipe: Recipe, tokenizer_json: str, cache: Features, parts: Sequence[Part] = ()
) -> Validation:
    """Captions the recipe's validation lists from their cached features.

    parts : the lists as they were screened; all of them if not given
    """
    parts = parts or [(spec, read_images([spec])) for spec in recipe.validation]
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
    world: World | None = None,
    left_out: Collection[int] = (),
) -> Features:
    """The recipe's cache of ``images`` in ``folder``; what is missing of it is computed. With no
    views there is no cache: features are computed as they are asked for.

    frozen : what computes it and its name, in place of the model's own frozen half
    left_out : places of pictures that are not read
    """
    encoder = recipe.encoder
    source = f"{encoder.name} {Path(encoder.weights).name} tuned from {encoder.tuned_from}"
    if encoder.settings:
        source += f" {sorted(encoder.settings.items())}"
    model.eval()
    half, kind = frozen or (model.frozen, _origin(recipe, model))
    if views == 0:
        return LiveFeatures(
            images,
            half,
            image_size=model.image_size,
            seed=recipe.cache_seed,
            augment=recipe.augment,
            device=(world or World()).device,
            threads=torch.get_num_threads(),
        )
    return build_cache(
        folder,
        images,
        half,
        image_size=model.image_size,
        source=f"{source} {kind}".strip(),
        views=views,
        seed=recipe.cache_seed if views > 1 else 0,
        augment=recipe.augment,
        world=world,
        left_out=left_out,
    )


def _origin(recipe: Recipe, model: CaptionModel) -> str:
    """Names the frozen half where the encoder's own name does not say all of it."""
    words = []
    if model.own_frozen_half:
        words.append(f"for {model.family}")
    # Layers that were tuned in the checkpoint may be frozen in this run.
    if recipe.init and describe(Path(recipe.init)).encoder != model.backbone.made_with:
        words.append(f"of the checkpoint {_digest(Path(recipe.init))}")
    return " ".join(words)


def _digest(checkpoint: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(checkpoint.glob("model-*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
