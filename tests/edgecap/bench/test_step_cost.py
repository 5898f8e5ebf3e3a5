"""Bytes of a step against parameters that others count, and docs/gpu.md against the code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgecap.bench import step_cost as floors
from edgecap.bench.devices import DEVICES, Device, find_device
from edgecap.models import bundled
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.errors import OptionsError

ROOT = Path(__file__).resolve().parents[3]


def test_gpt2_has_the_parameters_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config())
    total = sum(p.numel() for p in model.parameters())  # tied words count once
    places = model.transformer.wpe.weight.numel()
    assert floors.gpt2().weights == total - places
    assert 123e6 < floors.gpt2().weights < 125e6


def test_cross_attention_has_the_parameters_of_transformers() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=10_000, n_embd=512, n_layer=6, n_head=8, add_cross_attention=True
    )
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(config)
    total = sum(p.numel() for p in model.parameters())
    once = model.transformer.wpe.weight.numel()  # and keys and values of the memory
    once += 6 * (2 * 512 * 512 + 2 * 512)
    cost = floors.thirty_million()
    assert cost.weights == total - once
    assert 29e6 < total - model.transformer.wpe.weight.numel() < 31e6


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
def test_the_default_bundle_is_counted_in_its_graph() -> None:
    pytest.importorskip("onnx")
    counted = floors.bundle_cost(read_bundle(bundled()["default"]))
    said = floors.default_bundle()
    for name in ("weights", "rows", "past", "memory", "launches"):
        assert getattr(counted, name) == getattr(said, name)


def test_rows_share_weights_and_pictures_share_nothing() -> None:
    cost = floors.StepCost("made up", weights=1000, rows=10, past=8, memory=20, launches=3)
    # Two pictures of two beams, three tokens: one earlier token on average.
    assert cost.bytes_a_step("fp16", batch=2, beams=2, tokens=3) == 2 * (
        1000 + 10 * 4 + 8 * 4 + 20 * 2
    )
    assert cost.bytes_a_step("int8", tokens=1) == 1000 + 10 + 2 * 20
    device = Device("b", "b", 1.0, 1.0, 1.0, 1.0, 4.0, 1.0, 1, "made up")
    size = cost.bytes_a_step(tokens=10)
    assert cost.floor_ms(device, tokens=10) == pytest.approx(10 * size / 1e6)
    assert cost.projected_ms(device, tokens=10) == pytest.approx(
        10 * size / 1e6 / 0.5 + 10 * 3 * 4.0 / 1e3
    )
    with pytest.raises(OptionsError, match="give a GPU"):
        cost.projected_ms(find_device("rpi5"))


def test_devices_are_what_they_say() -> None:
    assert len({device.key for device in DEVICES}) == len(DEVICES) == 7
    for device in DEVICES:
        assert device.fp32 <= device.fp16 <= device.int8
        assert device.source
    with pytest.raises(OptionsError, match="orin-nano, orin-nano-super"):
        find_device("nano")


def test_the_page_agrees_with_the_code() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/gpu/tables.py")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs/gpu.md").read_text()
    tables = [part for part in done.stdout.split("\n\n") if part.startswith("|")]
    assert len(tables) >= 3
    for table in tables:
        assert table.strip() in page
    record = json.loads((ROOT / "benchmarks/records/gpu.json").read_text())
    assert ("**Not run**" in page) == (record["status"] == "not run")


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
def test_the_recorded_launches_are_those_of_the_code() -> None:
    record = json.loads((ROOT / "benchmarks/records/gpu_launches.json").read_text())
    assert record["bundle"]["own_kernels_a_step"] == floors.default_bundle().launches
    assert record["gpt2_12_layers"]["own_kernels_a_step"] == floors.gpt2().launches
