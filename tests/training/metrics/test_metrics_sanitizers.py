"""The C++ of the metrics, without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[2] / "runtime" / "native"
SANITIZE = "-fsanitize=address,undefined"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_metrics_are_sound_under_sanitizers(tmp_path: Path) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine to build the driver with")
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}\n")
    built = subprocess.run(
        [compiler, SANITIZE, str(probe), "-o", str(tmp_path / "probe")], capture_output=True
    )
    if built.returncode != 0:
        pytest.skip("this g++ has no sanitizer libraries")

    program = tmp_path / "driver"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
    flags += ["-ffp-contract=off", "-fno-trapping-math"]
    sources = [
        str(HERE / "metrics_sanitizer.cpp"),
        *(str(NATIVE / f"{name}.cpp") for name in ("cider", "meteor")),
    ]
    subprocess.run(
        [compiler, *flags, SANITIZE, f"-I{NATIVE}", *sources, "-o", str(program)],
        check=True,
        timeout=280,
    )
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "sound\n"
