"""Checkpoints come back as they were written, whole or not at all, and hold no pickle."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training import checkpoint  # noqa: E402
from edgecap.training.checkpoint import (  # noqa: E402
    TrainState,
    load_model,
    load_state,
    save_model,
    save_state,
)
from edgecap.training.errors import TrainingError  # noqa: E402
from edgecap.training.models import CaptionModel, make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402


def small(seed: int) -> CaptionModel:
    torch.manual_seed(seed)
    options = {"vocab_size": 30, "width": 24, "heads": 2, "hidden": 32, "max_positions": 5}
    return make_model("image-transformer", EncoderOptions(), options)


def test_model_comes_back(tmp_path: Path) -> None:
    model = small(0)
    save_model(tmp_path / "m", model, '{"a": 1}', {"epoch": 3})
    back, tokenizer, meta = load_model(tmp_path / "m")
    assert tokenizer == '{"a": 1}'
    assert meta == {"epoch": 3}
    for name, value in model.state_dict().items():
        assert torch.equal(value, back.state_dict()[name]), name


def test_half_precision_is_split_into_small_files(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 2_000_000)
    model = small(0)
    save_model(tmp_path / "m", model, "{}", {}, torch.float16)
    shards = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(shards) > 1
    assert all(shard.stat().st_size < 2_100_000 for shard in shards)
    back = load_model(tmp_path / "m")[0]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(back.state_dict()[name], value, atol=2e-3, rtol=2e-3)


def test_training_state_resumes_exactly(tmp_path: Path) -> None:
    def make(seed: int):
        model = small(seed)
        average = torch.optim.swa_utils.AveragedModel(model)
        parameters = [p for p in model.decoder.parameters()]
        return model, average, torch.optim.AdamW(parameters, lr=1e-2)

    def advance(model, average, optimizer) -> None:
        loss = sum((p**2).sum() for p in model.decoder.parameters())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)

    one = make(0)
    advance(*one)
    save_state(tmp_path / "state", *one, TrainState(epoch=1, step=9, best=0.5))
    advance(*one)
    other = make(1)
    assert load_state(tmp_path / "state", *other) == TrainState(1, 9, 0.5)
    advance(*other)
    for a, b in zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(one[1].state_dict().values(), other[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_folder_without_state_starts_from_nothing(tmp_path: Path) -> None:
    model = small(0)
    average = torch.optim.swa_utils.AveragedModel(model)
    assert load_state(tmp_path, model, average, torch.optim.AdamW(model.parameters())) is None


def test_moments_come_back_in_the_memory_order_of_their_weights(tmp_path: Path) -> None:
    """The fused step reads weights and moments as they lie in memory."""

    def make():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(8, 8, 3).to(memory_format=torch.channels_last)
        average = torch.optim.swa_utils.AveragedModel(model)
        return model, average, torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True)

    def advance(model, _, optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        x = torch.randn(2, 8, 9, 9).to(memory_format=torch.channels_last)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()

    one, other = make(), make()
    advance(*one, 1)
    save_state(tmp_path / "state", *one, TrainState())
    advance(*one, 2)
    load_state(tmp_path / "state", *other)
    advance(*other, 2)
    assert torch.equal(one[0].weight, other[0].weight)


def test_a_state_without_the_newer_fields_is_read(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    parts = (model, torch.optim.swa_utils.AveragedModel(model), torch.optim.SGD(model.parameters()))
    save_state(tmp_path / "state", *parts, TrainState())
    old = {"epoch": 4, "step": 70, "best": 0.6}
    (tmp_path / "state/state.json").write_text(json.dumps(old))
    assert load_state(tmp_path / "state", *parts) == TrainState(4, 70, 0.6)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    def parts(size: int):
        model = torch.nn.Linear(size, 2)
        average = torch.optim.swa_utils.AveragedModel(model)
        return model, average, torch.optim.SGD(model.parameters())

    save_state(tmp_path / "state", *parts(2), TrainState())
    with pytest.raises(DataError, match="another model: weight differs"):
        load_state(tmp_path / "state", *parts(3))


def test_what_an_interruption_between_two_renames_left_is_found(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    parts = (model, torch.optim.swa_utils.AveragedModel(model), torch.optim.SGD(model.parameters()))
    save_state(tmp_path / "state", *parts, TrainState(epoch=3))
    (tmp_path / "state").rename(tmp_path / "state.old")
    assert load_state(tmp_path / "state", *parts) == TrainState(epoch=3)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command here")
    if done.returncode:
        pytest.skip(f"a small disk needs the right to mount one: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_keeps_the_last_good_state(small_disk: Path) -> None:
    model = torch.nn.Linear(100, 100)
    average = torch.optim.swa_utils.AveragedModel(model)
    optimizer = torch.optim.AdamW(model.parameters())
    save_state(small_disk / "state", model, average, optimizer, TrainState(epoch=1))
    model(torch.ones(1, 100)).sum().backward()
    optimizer.step()  # moments: the state is now twice as large
    kept = model.weight.detach().clone()
    with pytest.raises(TrainingError, match="the one before it is kept") as error:
        save_state(small_disk / "state", model, average, optimizer, TrainState(epoch=2))
    assert "\n" not in str(error.value)
    assert load_state(small_disk / "state", model, average, optimizer) == TrainState(epoch=1)
    assert not torch.equal(model.weight, kept)


@pytest.mark.parametrize("damage", ["model.json", "tokenizer.json", "model-0.safetensors"])
def test_half_a_checkpoint_is_refused_in_one_line(tmp_path: Path, damage: str) -> None:
    save_model(tmp_path / "m", small(0), "{}", {})
    path = tmp_path / "m" / damage
    if damage == "tokenizer.json":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="no whole checkpoint") as error:
        load_model(tmp_path / "m")
    assert "\n" not in str(error.value)
