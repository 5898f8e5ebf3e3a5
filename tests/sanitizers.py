"""Builds a C++ driver of the native code under sanitizers and runs it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[1] / "runtime" / "native"
SANITIZE = "-fsanitize=address,undefined"


def check_sound(
    driver: Path, sources: Sequence[str], folder: Path, seconds: int, *, sanitize: str = SANITIZE
) -> None:
    """``driver`` with ``sources`` of the native folder must build without a warning, run to its end
    and say that it is sound. Skips where there is no compiler, or none with sanitizers."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine to build the driver with")
    probe = folder / "probe.cpp"
    probe.write_text("int main() {}\n")
    built = subprocess.run(
        [compiler, sanitize, str(probe), "-o", str(folder / "probe")], capture_output=True
    )
    if built.returncode != 0:
        pytest.skip("this g++ has no sanitizer libraries")
    ran = subprocess.run([str(folder / "probe")], capture_output=True, text=True)
    if ran.returncode != 0:
        pytest.skip(f"this system runs nothing under {sanitize}: {ran.stderr[-200:]}")

    program = folder / "driver"
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
    flags += ["-ffp-contract=off", "-fno-trapping-math", "-Wno-unknown-pragmas"]
    flags += ["-Wno-psabi"]  # vectors of 64 bytes pass between inlined functions alone
    files = [str(driver), *(str(NATIVE / name) for name in sources)]
    subprocess.run(
        [compiler, *flags, sanitize, f"-I{NATIVE}", *files, "-o", str(program)],
        check=True,
        timeout=seconds,
    )
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=seconds)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == "sound\n"
