"""Recipes from files, families and the command line: what is given wins, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("yaml")

from small_project import write_small_set

from edgecap.runtime.errors import DataError, EdgeCapError, OptionsError
from edgecap.training.config import difference
from edgecap.training.models import FAMILIES
from edgecap.training.recipe import CONFIGS, family_recipe, read_recipe

MINIMAL = """
train: [{data: "flickr8k:DATA/set", split: train}]
validation: [{data: "flickr8k:DATA/set", split: val}]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"flickr8k:{write_small_set(tmp_path_factory.mktemp('data') / 'set')}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_recipe_on_a_data_set(data: str, family: str) -> None:
    recipe = family_recipe(family, [data])
    assert recipe.family == family
    assert [(part.data, part.split) for part in recipe.train] == [(data, "train")]
    assert [part.split for part in recipe.validation] == ["val"]
    # Without published weights nothing is worth freezing.
    assert recipe.encoder.tuned_from == 0
    assert recipe.options.frozen_epochs == 0


def test_published_weights_are_found_by_the_encoders_name(data: str, tmp_path: Path) -> None:
    (tmp_path / "mobilenet_edgetpu_100").mkdir()
    recipe = family_recipe("show-and-tell", [data], str(tmp_path))
    assert recipe.encoder.weights == str(tmp_path / "mobilenet_edgetpu_100")
    assert recipe.encoder.tuned_from is None
    own = family_recipe("show-and-tell", [data], str(tmp_path / "model.safetensors"))
    assert own.encoder.weights == str(tmp_path / "model.safetensors")


def test_values_are_read_as_the_type_of_their_field(data: str) -> None:
    recipe = family_recipe(
        "image-transformer",
        [data],
        values=[
            "options.epochs=3",
            "options.decoder_rate=6e-4",
            "options.events=false",
            "options.precision=fp32",
            "model.width=192",
            "encoder.weights=123",
            "encoder.tuned_from=null",
            "encoder.settings.image_size=64",
            "decoding.beams=2",
            "distillation.teacher=runs/big",
            "distillation.weight=0.5",
        ],
    )
    assert recipe.options.epochs == 3
    assert recipe.options.decoder_rate == 6e-4
    assert recipe.options.events is False
    assert recipe.options.precision == "fp32"
    assert recipe.model["width"] == 192
    assert recipe.model["decoder_layers"] == 2  # the family's own file
    assert recipe.encoder.weights == "123"
    assert recipe.encoder.tuned_from is None
    assert recipe.encoder.settings == {"image_size": 64}
    assert recipe.decoding == {"beams": 2}
    assert recipe.distillation is not None
    assert (recipe.distillation.teacher, recipe.distillation.weight) == ("runs/big", 0.5)


def test_the_command_line_wins_over_the_config_and_that_over_the_family(
    data: str, tmp_path: Path
) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("options: {epochs: 5, batch: 8}\nmodel: {hidden: 100}\n")
    values = ["options.epochs=2"]
    recipe = family_recipe("image-transformer", [data], config=config, values=values)
    assert (recipe.options.epochs, recipe.options.batch) == (2, 8)
    assert (recipe.model["hidden"], recipe.model["width"]) == (100, 384)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("options.epoch=3", "did you mean options.epochs"),
        ("optins.epochs=3", "did you mean options?"),
        ("model.widht=3", "did you mean model.width"),
        ("model.qqq=3", "model has width, heads, hidden"),
        ("options.seed.low=3", "options.seed has no keys inside"),
        ("options.epochs=three", r"options\.epochs is 'three'"),
        ("options.precision=fp8", "give one of bf16, fp16, fp32"),
        ("options.epochs=0", "epochs is 0; give 1 or more"),
        ("model.vocab_size=3", "unknown key"),
        ("epochs", "not key=value"),
        ("distillation.weight=2", "weight"),
        ("distillation.weight=0.5", "no teacher"),
        ("encoder.nmae=x", r"did you mean encoder\.name"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(data: str, value: str, words: str) -> None:
    with pytest.raises(EdgeCapError, match=words) as error:
        family_recipe("image-transformer", [data], values=[value])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "views: a", r"\$\.views"),
        (MINIMAL + "optoins: {epochs: 3}", "did you mean options"),
        (MINIMAL + "options: {epoch: 3}", "did you mean options.epochs"),
        (MINIMAL.replace("split: val", "spilt: val"), r"did you mean validation\.split"),
        (MINIMAL + "model: {width: a}", "width"),
        (MINIMAL + "decoding: {beems: 3}", "did you mean decoding.beams"),
        (MINIMAL + "family: none", "give one of image-transformer"),
        (MINIMAL + "encoder: {name: none}", "give one of mobilenet-edgetpu"),
        ("train: []\nvalidation: []\n", "at least one list"),
        ("- a", "holds list"),
        ("a: [", "line"),
    ],
)
def test_a_wrong_file_is_named_with_its_place(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(DataError, match=words):
        read_recipe(str(tmp_path / "r.yaml"), "data", "weights")


def test_unknown_names_list_those_there_are(data: str) -> None:
    with pytest.raises(DataError, match=r"one of default.*image-transformer"):
        read_recipe("nothing", "data", "weights")
    with pytest.raises(DataError, match="give one of flickr8k"):
        family_recipe("show-and-tell", ["flicker:x"])
    with pytest.raises(DataError, match="give --data NAME:FOLDER"):
        family_recipe("show-and-tell", [])
    with pytest.raises(DataError, match="give --weights FOLDER"):
        read_recipe("default", "data", "")
    with pytest.raises(DataError, match=r"no file 'none\.yaml'"):
        family_recipe("show-and-tell", [data], config=Path("none.yaml"))


def test_a_set_without_a_validation_list_holds_back_a_twentieth(tmp_path: Path) -> None:
    folder = write_small_set(tmp_path / "set")
    (folder / "val.txt").unlink()
    recipe = family_recipe("show-and-tell", [f"captions-csv:{folder}"])
    assert [(part.part, part.every) for part in recipe.train] == [("kept", 20)]
    assert [(part.part, part.every) for part in recipe.validation] == [("held", 20)]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_here_are_whole(path: Path) -> None:
    recipe = read_recipe(path.stem, "data", "weights")
    assert all("DATA" not in part.data for part in (*recipe.train, *recipe.validation))


def test_the_first_key_that_differs_is_found() -> None:
    old = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert difference(old, {"a": {"b": 1, "c": 3}, "d": [1]}) == ("a.c", 2, 3)
    assert difference(old, {"a": {"b": 1, "c": 3}, "d": [1]}, ["a.c"]) is None
    assert difference(old, {"a": {"b": 1, "c": 2}, "d": [2]}) == ("d", [1], [2])


def test_options_that_contradict_are_refused(data: str) -> None:
    with pytest.raises((DataError, OptionsError), match="two objectives"):
        family_recipe(
            "show-and-tell",
            [data],
            values=["distillation.teacher=x", "self_critical.captions=3"],
        )


def test_a_recipe_goes_on_from_the_one_that_it_extends(tmp_path: Path) -> None:
    recipe = read_recipe("results/show-and-tell", "d", "w")
    assert recipe.family == "show-and-tell"
    assert recipe.train == read_recipe("default", "d", "w").train
    assert recipe.encoder.weights.startswith("w/")
    (tmp_path / "mine.yaml").write_text("extends: default\nviews: 2\nmodel: {width: 96}\n")
    mine = read_recipe(str(tmp_path / "mine.yaml"), "d", "w")
    assert (mine.views, mine.model["width"], mine.model["hidden"]) == (2, 96, 1536)
    (tmp_path / "mine.yaml").write_text("extends: nothing\n")
    with pytest.raises(DataError, match="extends 'nothing'"):
        read_recipe(str(tmp_path / "mine.yaml"), "d", "w")
