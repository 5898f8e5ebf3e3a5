"""Fine-tuning for int8: what is rounded is what ships, and the float model is the teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from small_project import write_small_project  # noqa: E402

from edgecap.export.bundle import ExportOptions, export_bundles  # noqa: E402
from edgecap.export.graphs import NoveltyHead  # noqa: E402
from edgecap.export.onnx import export_graphs  # noqa: E402
from edgecap.export.quantization_aware import (  # noqa: E402
    FineTuneOptions,
    fine_tune,
    read_options,
    round_weights,
    with_plain_weights,
)
from edgecap.export.quantize import STATIC, QuantizeOptions, store_weights_int8  # noqa: E402
from edgecap.runtime.engines.onnx import open_session  # noqa: E402
from edgecap.runtime.errors import DataError, OptionsError  # noqa: E402
from edgecap.training.checkpoint import load_model  # noqa: E402
from edgecap.training.corpus import read_images  # noqa: E402
from edgecap.training.models import CaptionModel, make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.objectives import DistillationOptions  # noqa: E402
from edgecap.training.recipe import Recipe, read_recipe  # noqa: E402
from edgecap.training.run import train  # noqa: E402
from edgecap.training.self_critical import SelfCriticalOptions  # noqa: E402


def small() -> CaptionModel:
    torch.manual_seed(0)
    options = {"vocab_size": 150, "width": 64, "heads": 4, "hidden": 80, "max_positions": 6}
    return make_model("image-transformer", EncoderOptions(), options).eval()


def test_what_is_rounded_is_what_the_bundle_stores() -> None:
    model = small()
    novelty = NoveltyHead(torch.zeros(model.backbone.features), torch.zeros(()))
    plain = export_graphs(model, novelty)
    assert round_weights(model) > 20
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with torch.inference_mode():
        rounded = model.encode(model.frozen(torch.from_numpy(pixels)))
    session = open_session(store_weights_int8(plain[0]).SerializeToString(), "e", 1)
    found = session.run(["memory.key.1", "memory.value.0"], {"image": pixels})
    before = open_session(plain[0].SerializeToString(), "f", 1).run(
        ["memory.key.1", "memory.value.0"], {"image": pixels}
    )
    expected = [rounded.memory["key.1"].numpy(), rounded.memory["value.0"].numpy()]
    for stored, own, unrounded in zip(found, expected, before, strict=True):
        np.testing.assert_allclose(stored, own, atol=2e-3)
        assert np.abs(stored - unrounded).max() > 3 * np.abs(stored - own).max()


def test_gradients_pass_through_the_rounding_and_the_plain_weights_come_back() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    round_weights(model)
    for _ in range(2):  # a second copy must not undo the first
        back = with_plain_weights(model).state_dict()
        assert all(torch.equal(value, back[name]) for name, value in before.items())
    model.logits(torch.ones(1, 64)).sum().backward()
    gradient = model.embed.parametrizations.weight.original.grad
    torch.testing.assert_close(gradient, torch.ones_like(gradient))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    recipe = read_recipe(str(write_small_project(folder)), str(folder), str(folder))
    recipe = replace(recipe, options=replace(recipe.options, epochs=4))
    return recipe, train(recipe, folder / "run", folder / "cache", 1), folder


def test_a_small_run_ends_in_a_static_bundle(project: tuple[Recipe, Path, Path]) -> None:
    recipe, checkpoint, folder = project
    options = FineTuneOptions(
        train=replace(recipe.options, epochs=2, frozen_epochs=0, decoder_rate=1e-4),
        distillation=DistillationOptions(),
        quantize=QuantizeOptions(static=True),
        calibration_images=4,
        views=2,
    )
    best = fine_tune(checkpoint, recipe, folder / "int8", folder / "cache", options, 1)
    log = [json.loads(line) for line in (folder / "int8" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 2
    assert log[-1]["teacher"] < 1.0
    again = fine_tune(checkpoint, recipe, folder / "int8", folder / "cache", options, 1)
    assert again == best
    tuned, _, meta = load_model(best)
    assert meta["quantize"]["static"] is True
    start = load_model(checkpoint)[0].state_dict()
    assert set(tuned.state_dict()) == set(start)
    assert not torch.equal(tuned.state_dict()["embed.weight"], start["embed.weight"])
    images = read_images(recipe.train)
    float_bundle, int8_bundle = export_bundles(
        best, images, folder / "f.edgecap", folder / "i.edgecap",
        ExportOptions(calibration_images=4, novelty_images=4), checkpoint,
    )  # fmt: skip
    assert int8_bundle.manifest.quantisation.encoder == STATIC
    assert float_bundle.manifest.quantisation.encoder == "float32"
    assert b"QuantizeLinear" in int8_bundle.files["encoder.onnx"]


def test_self_critical_training_goes_on_in_int8(project: tuple[Recipe, Path, Path]) -> None:
    recipe, checkpoint, folder = project
    train = replace(recipe.options, epochs=1, frozen_epochs=0, decoder_rate=1e-5)
    options = FineTuneOptions(
        train, self_critical=SelfCriticalOptions(captions=3), calibration_images=4, views=2
    )
    best = fine_tune(checkpoint, recipe, folder / "scst", folder / "cache", options, 1)
    assert load_model(best)[2]["quantize"]["static"] is True
    log = [json.loads(line) for line in (folder / "scst" / "log.jsonl").read_text().splitlines()]
    assert "reward" in log[-1]


def test_options_come_from_a_file_with_changes_on_top(tmp_path: Path) -> None:
    options = read_options("distil", ["train.epochs=1", "views=2"])
    assert (options.train.epochs, options.views) == (1, 2)
    assert read_options("self-critical").self_critical is not None
    with pytest.raises(DataError, match="distil, self-critical"):
        read_options("nothing")
    with pytest.raises(OptionsError, match="epochs"):
        read_options("distil", ["train.epochz=1"])
    (tmp_path / "both.yaml").write_text("train: {}\n")
    with pytest.raises((OptionsError, DataError), match="one of distillation and self_critical"):
        read_options(str(tmp_path / "both.yaml"))
