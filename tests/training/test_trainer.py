"""One trainer: parts of a batch, precision, resuming to the bit, stopping, and what goes wrong."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file  # noqa: E402
from small_project import write_smaller_project  # noqa: E402
from small_trainer import gradients, make_trainer  # noqa: E402

from edgecap.runtime.errors import DataError, OptionsError  # noqa: E402
from edgecap.training import checkpoint  # noqa: E402
from edgecap.training.errors import TrainingError  # noqa: E402
from edgecap.training.models.layers import FastDropout  # noqa: E402
from edgecap.training.recipe import Recipe, read_recipe  # noqa: E402
from edgecap.training.trainer import Trainer, TrainOptions, read_log  # noqa: E402


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("data")
    return read_recipe(str(write_smaller_project(folder)), str(folder), "")


@pytest.fixture
def make(
    recipe: Recipe, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Trainer]:
    """``make(name, **options)``: a trainer in a folder of that name."""
    cache = tmp_path_factory.getbasetemp() / "cache"

    def build(name: str, **changes: object) -> Trainer:
        return make_trainer(recipe, tmp_path / name, cache, **changes)

    return build


def assert_same_run(one: Path, other: Path) -> None:
    for name in ("weights", "average", "optimizer"):
        a, b = (load_file(folder / f"state/{name}.safetensors") for folder in (one, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    timeless = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(f / "log.jsonl")]
        for f in (one, other)
    ]
    assert timeless[0] == timeless[1]


def test_parts_of_a_batch_add_up_to_the_large_batch(make: Callable[..., Trainer]) -> None:
    whole = make("whole", batch=9, precision="fp32")
    parts = make("parts", batch=9, precision="fp32", accumulate=4)
    shares = [share for _, share in parts._read(0)]
    assert len(shares) == 4
    assert len(set(shares)) > 1
    assert sum(shares) == pytest.approx(1)
    a, b = gradients(whole), gradients(parts)
    assert a.keys() == b.keys()
    assert max(float(value.abs().max()) for value in a.values()) > 1e-2
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-6)


def test_one_part_has_the_gradients_of_plain_torch(make: Callable[..., Trainer]) -> None:
    trainer = make("plain", batch=4, precision="fp32")
    found = {name: value.clone() for name, value in gradients(trainer).items()}
    [(batch, share)] = trainer._read(0)
    assert share == 1
    trainer.model.zero_grad()
    inputs, targets = batch.tokens[:, :, :-1], batch.tokens[:, :, 1:]
    hidden = trainer.model.decode(trainer.model.encode(batch.frozen), inputs).hidden
    logits = trainer.model.logits(hidden)
    torch.nn.functional.cross_entropy(
        logits.flatten(0, 2), targets.flatten(), ignore_index=0
    ).backward()
    for name, parameter in trainer.model.named_parameters():
        if name in found:
            torch.testing.assert_close(parameter.grad, found[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("step", [3, 7])  # between two epochs, and inside one
def test_an_interrupted_run_ends_at_the_same_bits(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(FastDropout, "POOL", 1 << 16)
    changes = {"dropout": 0.3, "epochs": 3}
    make("whole", **changes).run()
    original = Trainer._step

    def interrupted(self: Trainer, parts: list) -> object:
        if self.state.step == step:
            raise KeyboardInterrupt
        return original(self, parts)

    monkeypatch.setattr(Trainer, "_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make("broken", **changes).run()
    monkeypatch.setattr(Trainer, "_step", original)
    make("broken", **changes).run()
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_a_run_killed_before_its_state_was_written_repeats_the_epoch(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("whole", epochs=2).run()
    from edgecap.training import trainer as module

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_state", killed)
    with pytest.raises(KeyboardInterrupt):
        make("killed", epochs=2).run()
    monkeypatch.undo()
    make("killed", epochs=2).run()
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_shorter_epochs_go_on_through_the_same_pictures(
    make: Callable[..., Trainer], tmp_path: Path
) -> None:
    make("long", epochs=1, warm_up=1000).run()
    make("short", epochs=3, steps_per_epoch=1, frozen_epochs=3, warm_up=1000).run()
    assert [line["step"] for line in read_log(tmp_path / "short" / "log.jsonl")] == [1, 2, 3]
    a, b = (load_file(tmp_path / name / "state/weights.safetensors") for name in ("long", "short"))
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_every_precision_trains(
    make: Callable[..., Trainer], tmp_path: Path, precision: str
) -> None:
    make(precision, epochs=6, precision=precision).run()
    lines = read_log(tmp_path / precision / "log.jsonl")
    assert lines[-1]["loss"] < 0.8 * lines[0]["loss"]
    scaler = json.loads((tmp_path / precision / "state/state.json").read_text())["scaler"]
    assert bool(scaler) == (precision == "fp16")


def test_patience_ends_a_run_that_gets_no_better(
    make: Callable[..., Trainer], tmp_path: Path
) -> None:
    rates = {"decoder_rate": 1e-9, "encoder_rate": 1e-9}
    make("slow", epochs=9, patience=2, **rates).run()
    assert len(read_log(tmp_path / "slow" / "log.jsonl")) == 3
    make("slow", epochs=9, patience=2, **rates).run()
    assert len(read_log(tmp_path / "slow" / "log.jsonl")) == 3


def test_a_guard_ends_the_run_and_the_best_checkpoint_stays(
    make: Callable[..., Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[float] = []

    def guard(scores: dict[str, float]) -> str | None:
        seen.append(scores["CIDEr"])
        return "captions shrank" if len(seen) == 2 else None

    make("guarded", epochs=5, guard=guard).run()
    assert len(seen) == 2
    assert "stopped after epoch 2: captions shrank" in capsys.readouterr().out
    meta = json.loads((tmp_path / "guarded/best/model.json").read_text())["meta"]
    assert meta["CIDEr"] == pytest.approx(max(seen), abs=1e-4)


def test_a_loss_that_is_no_number_stops_the_run(
    make: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make("broken", epochs=3)
    words = trainer._step

    def poisoned(parts: list) -> object:
        if trainer.state.step == 4:
            parts[0][0].frozen[0].fill_(float("nan"))
        return words(parts)

    trainer._step = poisoned
    with pytest.raises(TrainingError, match=r"loss is nan at step 5; .* holds epoch 1") as error:
        trainer.run()
    assert "\n" not in str(error.value)
    good = checkpoint.load_model(tmp_path / "broken" / "last")[0].state_dict()
    assert all(bool(value.isfinite().all()) for value in good.values())
    assert all(bool(value.isfinite().all()) for value in trainer.model.state_dict().values())


def test_a_full_disk_leaves_the_last_good_checkpoint(
    make: Callable[..., Trainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    make("whole", epochs=2).run()
    original, calls = safetensors.torch.save_file, itertools.count()

    def full(tensors: dict, path: Path, *more: object) -> None:
        original(tensors, path, *more)
        if next(calls) == 6:  # of the second epoch's checkpoints
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(TrainingError, match="No space left") as error:
        make("full", epochs=2).run()
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    for name in ("best", "last"):
        checkpoint.load_model(tmp_path / "full" / name)
    assert not list((tmp_path / "full").glob("*.part"))
    make("full", epochs=2).run()
    assert_same_run(tmp_path / "whole", tmp_path / "full")


def test_sizes_that_cannot_be_are_refused(make: Callable[..., Trainer]) -> None:
    with pytest.raises(DataError, match="12 training pictures are fewer than a batch of 20"):
        make("large", batch=20)
    with pytest.raises(DataError, match=r"give options\.batch 5 or more"):
        make("parts", batch=4, accumulate=5)


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"clip": 0.0}, {"precision": "fp8"}, {"average": 1.0}, {"clip": np.nan}],
)
def test_options_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(OptionsError, match=next(iter(wrong))):
        TrainOptions(**wrong)


def test_a_gpu_that_is_not_there_is_said() -> None:
    from edgecap.training.distributed import pick_device

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert pick_device("auto").type == "cpu"
    with pytest.raises(OptionsError, match="device=cpu"):
        pick_device("cuda")


def test_rates_warm_up_and_come_down() -> None:
    options = TrainOptions(warm_up=10)
    rates = [options.rate(step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.03, abs=0.002)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
