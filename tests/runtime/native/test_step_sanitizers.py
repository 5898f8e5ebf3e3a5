"""Encoders and decoder steps on the CPU, without Python: under sanitizers, and on ARM."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from sanitizers import NATIVE, check_sound

# All but what Python calls.
WITHOUT_PYTHON = {"step_bindings.cpp", "step_spec.cpp", "encode_bindings.cpp"}
STEPS = ["beam_cpu.cpp", "beam_candidates.cpp", "logit_tiles.cpp"]
STEPS += sorted({path.name for path in NATIVE.glob("step_*.cpp")} - WITHOUT_PYTHON)
ENCODER = sorted({path.name for path in NATIVE.glob("encode_*.cpp")} - WITHOUT_PYTHON)
DRIVERS = {"step_sanitizer.cpp": STEPS, "encode_sanitizer.cpp": STEPS + ENCODER}
COMMON = ["-std=c++17", "-O2", "-ffp-contract=off", "-fno-trapping-math", "-Wno-unknown-pragmas"]
COMMON += ["-Wno-psabi"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_it_is_sound_under_sanitizers(driver: str, tmp_path: Path) -> None:
    check_sound(Path(__file__).with_name(driver), DRIVERS[driver], tmp_path, 200)


def test_threads_share_parts_without_a_race(tmp_path: Path) -> None:
    driver = Path(__file__).with_name("pool_sanitizer.cpp")
    check_sound(driver, ["step_pool.cpp"], tmp_path, 200, sanitize="-fsanitize=thread")


def bits(driver: str, compiler: str, program: Path, *words: str) -> tuple[str, list[str]]:
    """The digest of all results, and the kernels that gave it; each must give it."""
    files = [str(Path(__file__).with_name(driver))]
    files += [str(NATIVE / name) for name in DRIVERS[driver]]
    flags = [*COMMON, "-static", "-pthread", f"-I{NATIVE}"]
    subprocess.run([compiler, *flags, *files, "-o", str(program)], check=True, timeout=200)
    done = subprocess.run([*words, str(program), "bits"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.split()[1::2]


@pytest.mark.parametrize("driver", DRIVERS)
def test_arm_gives_the_bits_of_this_processor(driver: str, tmp_path: Path) -> None:
    """Every family, precision and kernel; the same numbers with the same compiler's flags."""
    cross, here = shutil.which("aarch64-linux-gnu-g++"), shutil.which("g++")
    emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if not (cross and here and emulator):
        pytest.skip("no g++ for aarch64 or no qemu-aarch64 (apt: g++-aarch64-linux-gnu qemu-user)")
    ours, kernels = bits(driver, here, tmp_path / "here")
    arms, theirs = bits(driver, cross, tmp_path / "arm", emulator)
    assert arms == ours
    assert theirs == ["neon-dot", "neon", "portable"]
    assert kernels[-1] == "portable"
