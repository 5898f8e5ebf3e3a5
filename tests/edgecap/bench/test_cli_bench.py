"""``edgecap bench`` as it is typed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from bench_records import make_record, make_run

from edgecap.bench.record import SCHEMA, read_record, write_record
from edgecap.models import bundled
from edgecap.runtime.bundle import read_bundle, write_bundle

EDGECAP = [sys.executable, "-m", "edgecap", "bench"]


def edgecap(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGECAP, *words], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_a_run_with_its_record_and_its_page(tiny_bundle: Path, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    pytest.importorskip("matplotlib")
    record, page = tmp_path / "a.json", tmp_path / "a.html"
    words = [str(tiny_bundle), "--captions", "40", "--engine", "onnxruntime", "--json", str(record)]
    done = edgecap(*words, "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "generated (test://moving, 640x480): no --source was given" in done.stdout
    assert "too few samples for a p99: 40, at least 100 are needed" in done.stdout
    assert "10 of 10 captions have the tokens of the reference" in done.stdout
    assert done.stderr == ""
    jsonschema.validate(json.loads(record.read_text()), json.loads(SCHEMA.read_text()))
    found = read_record(record)
    assert found.runs[0].captions == 40
    assert str(tmp_path) not in record.read_text()
    assert "<html" in page.read_text()


def test_precisions_of_own_steps_are_runs(tiny_bundle: Path, tmp_path: Path) -> None:
    record = tmp_path / "a.json"
    words = ["--captions", "20", "--warm-up", "2", "--json", str(record)]
    done = edgecap("default", *words, "--engine", "native", "--precision", "int8,fp32")
    assert done.returncode == 0, done.stderr
    runs = read_record(record).runs
    assert [run.precision for run in runs] == ["int8", "fp32"]
    assert [f"kernels in {run.precision} " in run.engine_summary for run in runs] == [True, True]
    done = edgecap(str(tiny_bundle), *words, "--engine", "onnxruntime", "--precision", "int8")
    assert done.returncode == 2
    assert "error: precision int8 was asked for, but onnxruntime runs" in done.stderr
    done = edgecap("default", "--precision", "int3")
    assert done.returncode == 2
    assert "precision is 'int3'; give one or more of int8, bf16, fp32" in done.stderr


def test_a_source_that_ends_early_says_so(tiny_bundle: Path) -> None:
    words = ["--source", "test://moving?frames=8", "--engine", "onnxruntime"]
    done = edgecap(str(tiny_bundle), *words, "--warm-up", "3")
    assert done.returncode == 0, done.stderr
    assert "5 captions" in done.stdout
    assert "the source ended" in done.stdout
    done = edgecap(str(tiny_bundle), *words)
    assert done.returncode == 2
    assert "the source ended in the warm-up: give --loop" in done.stdout


def test_ctrl_c_keeps_what_was_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    words = [str(tiny_bundle), "--engine", "onnxruntime", "--duration", "600", "--warm-up", "1"]
    ours, theirs = pty.openpty()  # progress is for terminals
    process = subprocess.Popen(
        [*EDGECAP, *words, "--json", str(path)], stdout=subprocess.PIPE, stderr=theirs, text=True
    )
    os.close(theirs)
    seen = b""
    while not re.search(rb"\d captions", seen) and process.poll() is None:
        seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    threading.Thread(target=drain, args=(ours,), daemon=True).start()
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "interrupted: these figures are of what was measured until then" in out
    record = read_record(path)
    assert record.interrupted
    assert record.runs[0].captions >= 1
    assert record.runs[0].ended == "stopped"


def drain(terminal: int) -> None:
    """Read until the other end has gone."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 4096):
            pass
    os.close(terminal)


def with_an_outlier(path: Path) -> Path:
    """The default model whose last norm makes one feature large: float32 bears that, int8 not."""
    onnx = pytest.importorskip("onnx")
    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    bundle = read_bundle(bundled()["default"])
    file = bundle.manifest.graphs.decoder.file
    model = onnx.load_from_string(bundle.files[file])
    norm = [node for node in model.graph.node if node.op_type == "LayerNormalization"][-1]
    (gain,) = (one for one in model.graph.initializer if one.name == norm.input[1])
    values = onnx.numpy_helper.to_array(gain).copy()
    values[0] *= 300
    gain.CopyFrom(onnx.numpy_helper.from_array(values, gain.name))
    write_bundle(path, bundle.manifest, {**bundle.files, file: model.SerializeToString()})
    return path


def test_an_engine_that_says_something_else_is_not_timed(tmp_path: Path) -> None:
    model, path = with_an_outlier(tmp_path / "a.edgecap"), tmp_path / "a.json"
    words = [str(model), "--engine", "native", "--beams", "1", "--json", str(path)]
    done = edgecap(*words, EDGECAP_NATIVE_PRECISION="int8")
    assert done.returncode == 1, done.stdout
    assert "no time is told of an engine that says something else" in done.stdout
    assert " ms" not in done.stdout
    (run,) = read_record(path).runs
    assert (run.stages, run.samples, run.cold) == ({}, {}, None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--beams", "x"], "give whole numbers with commas"),
        (["--engine", "warp"], "engine is 'warp'"),
        (["--source", "absent.mp4"], "does not exist"),
        (["no-such-model"], "no model is named"),
        (["--json", "absent/a.json"], "cannot be written"),
        (["compare", "absent.json", "absent.json"], "cannot be read"),
    ],
)
def test_bad_input_gets_one_line(words: list[str], says: str) -> None:
    done = edgecap(*words)
    assert done.returncode == 2
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_compare(tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    write_record(before, make_record(make_run(1.5, seed=1)))
    write_record(after, make_record(make_run(1.0, seed=2)))
    done = edgecap("compare", str(before), str(after))
    assert done.returncode == 0, done.stderr
    assert "faster 1.5" in done.stdout
    assert "(95 % 1." in done.stdout


def test_help_names_the_subcommands() -> None:
    done = edgecap("--help")
    assert done.returncode == 0
    assert "edgecap bench [OPTIONS] [MODEL]" in done.stdout
    assert "compare" in done.stdout
    assert "compare [OPTIONS] BEFORE AFTER" in edgecap("compare", "--help").stdout
