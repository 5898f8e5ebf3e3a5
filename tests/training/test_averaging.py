"""The mean of checkpoints, and the epochs that a run keeps for it."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import small_encoder  # noqa: E402, F401
from click.testing import CliRunner  # noqa: E402
from small_project import write_smaller_project  # noqa: E402

from edgecap.cli.average import command  # noqa: E402
from edgecap.runtime.errors import DataError, OptionsError  # noqa: E402
from edgecap.training.averaging import average_checkpoints  # noqa: E402
from edgecap.training.checkpoint import load_model, save_model  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.options import TrainOptions  # noqa: E402
from edgecap.training.recipe import read_recipe  # noqa: E402
from edgecap.training.run import train  # noqa: E402
from edgecap.training.run_folder import kept_epochs  # noqa: E402
from edgecap.training.vocabulary import build_word_tokenizer  # noqa: E402


def save(folder: Path, seed: int, words: str = "a b c", **changes: int) -> Path:
    torch.manual_seed(seed)
    tokenizer = build_word_tokenizer([words], 1)
    options = {"vocab_size": tokenizer.get_vocab_size(), "width": 24, "hidden": 24, **changes}
    model = make_model("show-and-tell", EncoderOptions("small"), options)
    save_model(folder, model, tokenizer.to_str(), {"epoch": seed, "quantize": {"static": True}})
    return folder


def test_the_mean_is_torchs_mean(tmp_path: Path) -> None:
    folders = [save(tmp_path / str(seed), seed) for seed in (1, 2, 3)]
    done = CliRunner().invoke(
        command, [*map(str, folders), "-o", str(tmp_path / "mean")], catch_exceptions=False
    )
    assert done.exit_code == 0
    states = [load_model(folder)[0].state_dict() for folder in folders]
    model, _, meta = load_model(tmp_path / "mean")
    for name, value in model.state_dict().items():
        stacked = torch.stack([state[name].double() for state in states])
        torch.testing.assert_close(value.double(), stacked.mean(0), atol=1e-7, rtol=1e-6)
    assert meta == {"quantize": {"static": True}, "average_of": ["1", "2", "3"]}


def test_what_is_not_one_model_is_refused(tmp_path: Path) -> None:
    first = save(tmp_path / "first", 1)
    with pytest.raises(DataError, match="give two or more"):
        average_checkpoints([first], tmp_path / "mean")
    with pytest.raises(DataError, match="another size"):
        average_checkpoints([first, save(tmp_path / "long", 1, max_positions=9)], tmp_path / "mean")
    with pytest.raises(DataError, match="another vocabulary"):
        average_checkpoints([first, save(tmp_path / "words", 1, "x y z")], tmp_path / "mean")
    with pytest.raises(DataError, match="no whole checkpoint"):
        average_checkpoints([first, tmp_path], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_run_keeps_its_newest_epochs(tmp_path: Path) -> None:
    recipe = write_smaller_project(tmp_path)
    plan = read_recipe(str(recipe), str(tmp_path), "", values=["options.keep=2"])
    run = tmp_path / "run"
    train(plan, run, tmp_path / "cache", 1)
    assert [path.name for path in kept_epochs(run)] == ["epoch-2", "epoch-3"]
    last, kept = (load_model(run / name)[0].state_dict() for name in ("last", "epoch-3"))
    assert all(torch.equal(value, kept[name]) for name, value in last.items())
    average_checkpoints(kept_epochs(run), run / "mean")
    with pytest.raises(OptionsError, match="keep"):
        TrainOptions(keep=-1)
