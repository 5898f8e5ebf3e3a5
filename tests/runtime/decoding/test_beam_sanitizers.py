"""The C++ core, without Python, under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
NATIVE = HERE.parents[2] / "runtime" / "native"
SANITIZE = "-fsanitize=address,undefined"


def test_the_core_is_sound_under_sanitizers(tmp_path: Path) -> None:
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
    sources = [str(HERE / "beam_sanitizer.cpp"), str(NATIVE / "beam_cpu.cpp")]
    subprocess.run(
        [compiler, *flags, SANITIZE, f"-I{NATIVE}", *sources, "-o", str(program)],
        check=True,
        timeout=120,
    )
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "sound\n"
