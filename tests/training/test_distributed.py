"""Two processes do what one does: the same gradients, the same run, at the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from safetensors.torch import load_file  # noqa: E402
from small_project import write_smaller_project  # noqa: E402
from small_trainer import clip_gpt, gradients, make_trainer  # noqa: E402

from edgecap.runtime.errors import OptionsError  # noqa: E402
from edgecap.training.distributed import joined  # noqa: E402
from edgecap.training.recipe import Recipe, read_recipe  # noqa: E402
from edgecap.training.trainer import read_log  # noqa: E402

WORKER = Path(__file__).parent / "distributed_worker.py"
ALONE = {"batch": 5, "precision": "fp32", "parallel": "none"}

if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("this torch has no gloo", allow_module_level=True)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote: DDP-1.safetensors ... and the folders of two whole runs."""
    folder = tmp_path_factory.mktemp("two")
    project = folder / "project"
    project.mkdir()
    write_smaller_project(project)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [sys.executable, *launch, str(WORKER), str(project), str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("epoch 1 of 3") == 2  # one process of each run speaks
    return folder


@pytest.fixture(scope="module")
def recipe(out: Path) -> Recipe:
    return read_recipe(str(out / "project" / "small.yaml"), str(out / "project"), "")


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["1", "2", "clip-gpt"])  # accumulated parts, or another family
def test_gradients_are_those_of_one_process(
    out: Path, recipe: Recipe, tmp_path: Path, parallel: str, name: str
) -> None:
    chosen = clip_gpt(recipe) if name == "clip-gpt" else recipe
    cache = out / ("clip" if name == "clip-gpt" else "cache")
    wanted = gradients(make_trainer(chosen, tmp_path, cache, **ALONE))
    found = load_file(out / f"{parallel}-{name}.safetensors")
    assert found.keys() == wanted.keys()
    assert max(float(value.abs().max()) for value in wanted.values()) > 1e-2
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_an_interrupted_run_of_two_ends_where_one_process_does(
    out: Path, recipe: Recipe, tmp_path: Path, parallel: str
) -> None:
    make_trainer(recipe, tmp_path, out / "cache", **ALONE).run()
    lines, wanted = (read_log(folder / "log.jsonl") for folder in (out / parallel, tmp_path))
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    for line, other in zip(lines, wanted, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name in ("weights", "average"):
        a, b = (load_file(f / f"state/{name}.safetensors") for f in (out / parallel, tmp_path))
        assert a.keys() == b.keys()
        for key in a:
            torch.testing.assert_close(a[key], b[key], rtol=1e-3, atol=2e-4)


def test_processes_that_share_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionsError, match="give ddp or fsdp"), joined("cpu", "none"):
        pass
