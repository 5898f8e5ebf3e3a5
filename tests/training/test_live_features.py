"""Features without a cache: the same views by their numbers, and runs that go on exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import small_encoder  # noqa: E402, F401
from small_project import write_small_set, write_smaller_project  # noqa: E402

from edgecap.training.augment import AugmentOptions  # noqa: E402
from edgecap.training.data import open_dataset  # noqa: E402
from edgecap.training.features import build_cache  # noqa: E402
from edgecap.training.live_features import LiveFeatures  # noqa: E402
from edgecap.training.recipe import Recipe, read_recipe  # noqa: E402
from edgecap.training.run import train  # noqa: E402

AUGMENT = AugmentOptions(crop=0.5)


def corner(pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A frozen half that gives numbers float16 holds, and the pixels."""
    return pixels[:, :4, :4].float().mean((1, 2)).round(), pixels


def test_the_views_are_those_of_a_cache(tmp_path: Path) -> None:
    write_small_set(tmp_path / "set")
    images = open_dataset(f"flickr8k:{tmp_path}/set", "train").images
    shared = {"image_size": 32, "seed": 3, "augment": AUGMENT}
    cache = build_cache(tmp_path / "cache", images, corner, source="x", views=3, **shared)
    live = LiveFeatures(images, corner, device=torch.device("cpu"), **shared)
    rows, views = np.array([0, 4, 4, 11]), np.array([0, 1, 2, 1])
    for cached, computed in zip(cache.batch(rows, views), live.batch(rows, views), strict=True):
        assert torch.equal(cached, computed)
    again = live.batch(rows, views + 7)
    assert not torch.equal(again[1], live.batch(rows, views)[1])


def recipe_of(folder: Path, *values: str) -> Recipe:
    recipe = folder / "small.yaml"
    if not recipe.exists():
        write_smaller_project(folder)
    return read_recipe(str(recipe), str(folder), "", values=["views=0", *values])


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]


def test_a_run_without_a_cache_goes_on_to_the_bit(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    train(recipe, tmp_path / "whole", tmp_path / "cache", 1)
    assert not (tmp_path / "cache" / "train").exists()

    class Stop(Exception):
        pass

    def stop(*_: object) -> None:
        raise Stop

    from edgecap.training import trainer

    real = trainer.Trainer._epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trainer.Trainer, "_epoch", lambda t: stop() if t.state.epoch == 1 else real(t)
        )
        with pytest.raises(Stop):
            train(recipe, tmp_path / "parts", tmp_path / "cache", 1)
    train(recipe, tmp_path / "parts", tmp_path / "cache", 1)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert len(losses(tmp_path / "whole")) == 3
    cached = recipe_of(tmp_path, "views=2")
    train(cached, tmp_path / "cached", tmp_path / "cache", 1)
    assert losses(tmp_path / "cached") != losses(tmp_path / "whole")
