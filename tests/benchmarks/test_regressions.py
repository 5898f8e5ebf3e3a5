"""Micro benchmarks compared with saved ones: a real file of pytest-benchmark, and made-up times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from regressions import compare, main

pytest.importorskip("pytest_benchmark")
TIMES = {f"test_a.py::test_{name}": {"median_s": 0.01, "iqr_s": 0.0002} for name in "abcde"}


def slower(**factors: float) -> dict[str, dict[str, float]]:
    return {
        name: {**one, "median_s": one["median_s"] * factors.get(name[-1], 1.0)}
        for name, one in TIMES.items()
    }


def test_one_that_became_slower_is_told_first() -> None:
    lines, failed = compare(TIMES, slower(c=1.4, d=0.5))
    assert failed
    assert "REGRESSION" in lines[1]
    assert lines[1].endswith("test_c")
    assert "faster" in lines[-1]
    assert lines[-1].endswith("test_d")
    assert sum("REGRESSION" in line for line in lines) == 1


def test_a_machine_that_is_slower_today_is_no_regression() -> None:
    lines, failed = compare(TIMES, slower(a=2, b=2.1, c=2, d=1.9, e=2))
    assert not failed
    assert "the median one takes 2.00 times as long" in lines[0]
    assert all("within noise" in line for line in lines[1:])


def test_a_wide_spread_explains_a_larger_difference() -> None:
    wild = {name: {**one, "iqr_s": 0.006} for name, one in TIMES.items()}
    assert compare(TIMES, slower(c=1.5))[1]
    assert not compare(wild, slower(c=1.5))[1]


def test_a_benchmark_that_is_gone_is_told() -> None:
    fewer = {name: one for name, one in TIMES.items() if not name.endswith("c")}
    lines, failed = compare(TIMES, fewer)
    assert failed
    assert lines[0] == "gone: test_a.py::test_c"
    lines, failed = compare(fewer, TIMES)
    assert not failed
    assert lines[0] == "new: test_a.py::test_c"
    assert compare(TIMES, {}) == (
        [*(f"gone: {name}" for name in TIMES), "no benchmark is in both"],
        True,
    )


def test_a_real_file_is_saved_and_compared(tmp_path: Path) -> None:
    (tmp_path / "test_sum.py").write_text(
        "def test_sum(benchmark):\n    assert benchmark(sum, range(5000)) > 0\n"
    )
    measured, saved = tmp_path / "measured.json", tmp_path / "saved.json"
    words = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(tmp_path)]
    words += ["--benchmark-max-time", "0.1", f"--benchmark-json={measured}", str(tmp_path)]
    # Where these tests run in parallel, benchmarks would be off in a process below them.
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    run = CliRunner()
    assert "make it with --save" in run.invoke(main, [str(measured), "--saved", str(saved)]).output
    told = run.invoke(main, [str(measured), "--save", "--saved", str(saved)])
    assert told.output == "1 benchmarks saved in saved.json\n"
    found = run.invoke(main, [str(measured), "--saved", str(saved)])
    assert found.exit_code == 0, found.output
    assert "test_sum.py::test_sum" in found.output
    record = json.loads(saved.read_text())
    record["machine"]["cpu"] = "another"
    saved.write_text(json.dumps(record))
    assert "of another machine" in run.invoke(main, [str(measured), "--saved", str(saved)]).output
    measured.write_text("[]")
    assert "is no file of --benchmark-json" in run.invoke(main, [str(measured)]).output
