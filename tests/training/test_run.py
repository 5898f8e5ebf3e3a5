"""Whole small runs: they learn, stop, start from checkpoints, and say what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

import small_encoder  # noqa: E402, F401
from small_project import write_smaller_project  # noqa: E402

from edgecap.runtime.errors import DataError, OptionsError  # noqa: E402
from edgecap.training.checkpoint import load_model  # noqa: E402
from edgecap.training.pseudo_captions import PseudoCaptionOptions  # noqa: E402
from edgecap.training.recipe import DistillationRecipe, Recipe, read_recipe  # noqa: E402
from edgecap.training.run import train  # noqa: E402
from edgecap.training.self_critical import SelfCriticalOptions  # noqa: E402
from edgecap.training.trainer import read_log  # noqa: E402


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("data")
    return read_recipe(str(write_smaller_project(folder)), str(folder), "")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(recipe: Recipe, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of thirty epochs."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    return train(options(recipe, epochs=30, events=True), folder, cache, 1)


def options(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, options=replace(recipe.options, **changes))


def log(folder: Path) -> list[dict]:
    return read_log(folder / "log.jsonl")


def test_it_learns_the_colours(trained: Path) -> None:
    lines = log(trained.parent)
    assert lines[-1]["loss"] < 0.3 * lines[0]["loss"]
    assert max(line["CIDEr"] for line in lines) > 2
    assert lines[-1]["sample"] == {"image": "12.png", "caption": "this is a red wall x"}
    assert (trained.parent / "curves.png").stat().st_size > 1000


def test_tensorboard_reads_the_events(trained: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(trained.parent / "events"))
    events.Reload()
    lines = log(trained.parent)
    assert [event.value for event in events.Scalars("CIDEr")] == pytest.approx(
        [line["CIDEr"] for line in lines], abs=1e-4
    )
    assert len(events.Scalars("step/loss")) == lines[-1]["step"] // 10
    last = events.Tensors("sample/text_summary")[-1].tensor_proto.string_val[0].decode()
    assert last == lines[-1]["sample"]["caption"]


def test_a_run_goes_on_only_with_its_own_config(recipe: Recipe, cache: Path, trained: Path) -> None:
    text = (trained.parent / "config.yaml").read_text()
    assert "seed: 3" in text
    with pytest.raises(OptionsError, match=r"options\.epochs 30, now it is 31"):
        train(options(recipe, epochs=31, events=True), trained.parent, cache, 1)
    before = log(trained.parent)
    assert train(options(recipe, epochs=30, device="cpu"), trained.parent, cache, 1) == trained
    assert log(trained.parent) == before


def test_a_cache_of_other_pictures_is_refused(recipe: Recipe, cache: Path, tmp_path: Path) -> None:
    train(options(recipe, epochs=1), tmp_path / "run", cache, 1)
    with pytest.raises(ValueError, match="other pictures, options"):
        train(replace(recipe, cache_seed=9), tmp_path / "two", cache, 1)


def test_init_starts_where_the_checkpoint_is(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path
) -> None:
    again = replace(options(recipe, epochs=1, decoder_rate=1e-7, encoder_rate=1e-7), model={})
    best = train(replace(again, init=str(trained)), tmp_path / "run", cache, 1)
    lines = log(tmp_path / "run")
    assert lines[0]["epoch"] == 0
    assert lines[0]["CIDEr"] == max(line["CIDEr"] for line in log(trained.parent))
    weights, start = load_model(best)[0].state_dict(), load_model(trained)[0].state_dict()
    assert all(torch.equal(weights[name], start[name]) for name in start)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "show-and-tell", "model": {}}, "family image-transformer"),
        ({"min_count": 1, "tokenizer": "OTHER"}, "another vocabulary"),
        ({"model": {"width": 24, "heads": 4}}, r"width 48 \(here 24\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path, changes: dict, words: str
) -> None:
    if "tokenizer" in changes:
        found = json.loads((trained / "tokenizer.json").read_text())
        found["model"]["vocab"] = {
            k if k.startswith("<") else f"{k}!": v for k, v in found["model"]["vocab"].items()
        }
        (tmp_path / "tokenizer.json").write_text(json.dumps(found))
        changes = {**changes, "tokenizer": str(tmp_path)}
    with pytest.raises(DataError, match=words) as caught:
        train(replace(recipe, init=str(trained), **changes), tmp_path / "run", cache, 1)
    assert "\n" not in str(caught.value)


def test_the_state_of_another_vocabulary_is_refused(
    recipe: Recipe, cache: Path, tmp_path: Path
) -> None:
    train(options(recipe, epochs=1), tmp_path / "run", cache, 1)
    (tmp_path / "run" / "last" / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="another vocabulary"):
        train(options(recipe, epochs=1), tmp_path / "run", cache, 1)


def test_distillation_learns_from_a_teacher_with_another_encoder(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path
) -> None:
    student = replace(
        options(recipe, epochs=12, decoder_rate=2e-2),
        family="show-and-tell",
        model={"width": 32, "hidden": 32, "max_positions": 8, "dropout": 0.0},
        encoder=replace(recipe.encoder, tuned_from=0),
        distillation=DistillationRecipe(teacher=str(trained), weight=1.0),
    )
    train(student, tmp_path / "run", tmp_path / "pixels", 1)
    lines = log(tmp_path / "run")
    assert lines[-1]["teacher"] < 0.3 * lines[0]["teacher"]
    # The student learns from pixels, the teacher from its own frozen half.
    assert np.load(tmp_path / "pixels/train/view-0/0.npy").shape == (12, 32, 32, 3)
    assert np.load(tmp_path / "pixels/teacher/view-1/0.npy").shape == (12, 8, 8, 8)


def test_a_teacher_with_the_same_frozen_half_shares_the_cache(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path
) -> None:
    plan = DistillationRecipe(teacher=str(trained))
    train(replace(options(recipe, epochs=1), distillation=plan), tmp_path / "run", cache, 1)
    assert not (cache / "teacher").exists()


def test_a_teacher_of_another_tokenizer_is_refused(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path
) -> None:
    plan = DistillationRecipe(teacher=str(trained))
    other = replace(recipe, distillation=plan, min_count=9)
    with pytest.raises(DataError, match="another tokenizer"):
        train(other, tmp_path / "run", cache, 1)


def test_pseudo_captions_are_learned_and_resumed(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path
) -> None:
    plan = PseudoCaptionOptions(teacher=str(trained), beams=2)
    taught = replace(options(recipe, epochs=1), pseudo_captions=plan)
    path = tmp_path / "run" / "pseudo_captions.jsonl"
    train(taught, tmp_path / "run", cache, 1)
    whole = path.read_text()
    first, *lines = [json.loads(line) for line in whole.splitlines()]
    assert first == {"teacher": str(trained), "beams": 2}
    assert [line["image"] for line in lines] == [f"{i}.png" for i in range(12)]
    assert "green wall" in lines[1]["caption"]
    path.write_text(whole[:300])  # in the middle of a line
    train(taught, tmp_path / "run", cache, 1)
    assert path.read_text() == whole
    path.write_text(whole.replace('"beams": 2', '"beams": 3'))
    with pytest.raises(DataError, match="another teacher"):
        train(taught, tmp_path / "run", cache, 1)


def test_self_critical_training_keeps_the_better_start(
    recipe: Recipe, cache: Path, trained: Path, tmp_path: Path
) -> None:
    plan = options(recipe, epochs=2, decoder_rate=1.0, encoder_rate=1.0, warm_up=0)
    wild = replace(plan, init=str(trained), self_critical=SelfCriticalOptions(captions=2))
    best = train(wild, tmp_path / "run", cache, 1)
    lines = log(tmp_path / "run")
    assert len(lines) == 2  # the start and the epoch after which the guard stopped it
    assert lines[1]["CIDEr"] < lines[0]["CIDEr"]
    assert json.loads((best / "model.json").read_text())["meta"]["epoch"] == 0


def test_pictures_that_cannot_be_used_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = options(
        read_recipe(str(write_smaller_project(tmp_path)), str(tmp_path), ""), epochs=1, batch=2
    )
    images = tmp_path / "set" / "images"
    (images / "3.png").write_bytes(b"no picture")
    (images / "4.png").write_bytes((images / "13.png").read_bytes())  # validated on
    with pytest.raises(DataError, match="cannot be decoded"):
        train(small, tmp_path / "strict", tmp_path / "cache", 1, strict=True)
    train(small, tmp_path / "run", tmp_path / "cache", 1)
    out = capsys.readouterr().out
    assert "1 pictures in two splits" in out
    assert "1 images that cannot be decoded" in out
    assert "2 of 12 training pictures are left out" in out
    assert json.loads((tmp_path / "run" / "checks.json").read_text())["train"] == [3, 4]
    assert log(tmp_path / "run")[-1]["step"] == 5  # ten pictures in batches of two
