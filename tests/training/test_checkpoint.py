"""Checkpoints come back as they were written, whole or not at all, and hold no pickle."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgecap.training import checkpoint  # noqa: E402
from edgecap.training.checkpoint import (  # noqa: E402
    TrainState,
    load_model,
    load_state,
    save_model,
    save_state,
)
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
