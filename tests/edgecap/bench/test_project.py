"""Projections: arithmetic, the label, the error beside each, bad input."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgecap.bench.devices import DEVICES, find_device
from edgecap.bench.project import Calibration, Shares, predict_ms, project, read_calibration
from edgecap.bench.step_cost import bundle_cost
from edgecap.cli.bench_project import command
from edgecap.models import bundled
from edgecap.runtime.bundle import read_bundle
from edgecap.runtime.errors import BundleError, OptionsError

pytest.importorskip("onnx")

KNOWN = Calibration(Shares(0.5, 0.8), Shares(0.25, 0.9), 2.0, 9, 0.1, 0.3, "a CPU", "2026-01-01")
ROOT = Path(__file__).resolve().parents[3]
RECORDS = ROOT / "benchmarks" / "records"


def test_the_method() -> None:
    assert predict_ms(2.0, 0.5, 10, 4.0) == pytest.approx(4.0 + 0.04)


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.key)
def test_every_device(device, tiny_bundle: Path) -> None:  # type: ignore[no-untyped-def]
    bundle = read_bundle(tiny_bundle)
    found = project(bundle, device, tokens=3, calibration=KNOWN)
    assert "projection" in found.label
    assert 0 < found.floor_ms < found.projected_ms
    assert found.stages[0].projected_ms == pytest.approx(2.0 * device.host)
    assert "30% at worst of 9 predictions" in found.error
    assert ("the GPU part of the method is unchecked" in found.error) == device.gpu
    whole = json.loads(json.dumps(found.to_dict()))
    assert whole["projected_ms"] == pytest.approx(
        sum(stage["projected_ms"] for stage in whole["stages"]), abs=1e-3
    )
    assert whole["device"]["source"]


def test_a_recurrent_decoder_is_projected_too(make_bundle) -> None:  # type: ignore[no-untyped-def]
    bundle = read_bundle(make_bundle(recurrent=True))
    for key in ("rpi5", "orin-nano"):
        assert project(bundle, find_device(key), tokens=2, calibration=KNOWN).projected_ms > 0


@pytest.mark.skipif("default" not in bundled(), reason="this checkout has no default model")
def test_the_decoder_on_a_gpu_is_that_of_the_page_about_gpus() -> None:
    bundle, device = read_bundle(bundled()["default"]), find_device("agx-orin")
    found = project(bundle, device, tokens=16, beams=4, calibration=KNOWN)
    decoder = next(stage for stage in found.stages if stage.name == "decoder")
    expected = bundle_cost(bundle).projected_ms(device, 16, beams=4)
    assert decoder.projected_ms == pytest.approx(expected)


def test_the_page_has_the_table_of_the_code() -> None:
    page = (ROOT / "docs" / "project.md").read_text()
    for device in DEVICES:
        rates = " / ".join(f"{rate / 1e3:.4g}" for rate in (device.fp32, device.fp16, device.int8))
        assert f"| `{device.key}` | {device.bandwidth:g} | {rates} |" in page
        assert device.source in page


def test_bad_input(tiny_bundle: Path) -> None:
    bundle, device = read_bundle(tiny_bundle), find_device("rpi5")
    with pytest.raises(OptionsError, match="beams is 0"):
        project(bundle, device, beams=0, calibration=KNOWN)
    with pytest.raises(OptionsError, match=r"tokens is 999; .* positions"):
        project(bundle, device, tokens=999, calibration=KNOWN)
    run = CliRunner()
    unknown = run.invoke(command, [str(tiny_bundle), "--device", "toaster"])
    assert isinstance(unknown.exception, OptionsError)
    assert "orin-nano, orin-nano-super" in str(unknown.exception)
    absent = run.invoke(command, ["absent.edgecap", "--device", "rpi5"])
    assert isinstance(absent.exception, BundleError)


def test_the_command(tiny_bundle: Path) -> None:
    words = [str(tiny_bundle), "--device", "orin-nano-super", "--tokens", "3"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert "Projection, not a measurement" in done.output
    assert "Error: " in done.output
    assert "unchecked" in done.output
    as_json = CliRunner().invoke(command, [*words, "--json"])
    found = json.loads(as_json.output)
    assert found["label"] == "projection, not a measurement"
    assert found["error"]


def test_the_packaged_calibration_is_that_of_the_record() -> None:
    record = json.loads((RECORDS / "projection_check.json").read_text())
    known = read_calibration()
    assert asdict(known.encoder) == record["encoder"]
    assert asdict(known.step) == record["step"]
    assert (known.checks, known.error, known.worst) == (
        *(record[name] for name in ("checks", "error", "worst")),
    )
    assert known.checks >= 5
    others = [case for case in record["cases"] if not case["calibrates"]]
    assert known.worst == max(abs(case["error"]) for case in others)
