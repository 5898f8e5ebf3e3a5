"""A whole small run: it learns, and an interrupted run ends where an uninterrupted one does."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from small_project import write_small_project  # noqa: E402

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training.recipe import Recipe, read_recipe  # noqa: E402
from edgecap.training.run import train  # noqa: E402
from edgecap.training.trainer import TrainOptions  # noqa: E402


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("data")
    return read_recipe(str(write_small_project(folder)), str(folder), str(folder))


def epochs(recipe: Recipe, count: int) -> Recipe:
    return dataclasses.replace(recipe, options=dataclasses.replace(recipe.options, epochs=count))


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_it_learns_the_colours(recipe: Recipe, tmp_path: Path) -> None:
    best = train(epochs(recipe, 25), tmp_path / "run", tmp_path / "cache", 1)
    lines = log(tmp_path / "run")
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert max(line["CIDEr"] for line in lines) > 2
    assert (best / "model.json").exists()


def test_an_interrupted_run_goes_on_to_the_same_weights(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(recipe, tmp_path / "whole", tmp_path / "cache", 1).parent
    from edgecap.training.trainer import Trainer

    original = Trainer._epoch

    def stop_after_first(self: Trainer) -> None:
        if self.state.epoch == 1:
            raise KeyboardInterrupt
        original(self)

    monkeypatch.setattr(Trainer, "_epoch", stop_after_first)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "broken", tmp_path / "cache", 1)
    monkeypatch.setattr(Trainer, "_epoch", original)
    resumed = train(recipe, tmp_path / "broken", tmp_path / "cache", 1).parent
    for a, b in zip(log(whole), log(resumed), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_a_cache_of_other_pictures_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    train(epochs(recipe, 1), tmp_path / "run", tmp_path / "cache", 1)
    with pytest.raises(ValueError, match="other pictures, options"):
        train(dataclasses.replace(recipe, cache_seed=9), tmp_path / "two", tmp_path / "cache", 1)


def test_unknown_recipes_list_those_there_are() -> None:
    with pytest.raises(DataError, match="default"):
        read_recipe("nothing", "data", "weights")


def test_a_wrong_field_is_named_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "train: []\nvalidation: []\nmodel: {}\nviews: a\n"
    )
    with pytest.raises(DataError, match=r"\$\.views"):
        read_recipe(str(tmp_path / "r.yaml"), "data", "weights")


def test_rates_warm_up_and_come_down() -> None:
    options = TrainOptions(warm_up=10)
    rates = [options.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.03, abs=0.002)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
