"""What a record says of its machine, of this one and of one that is laid out in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from edgecap.bench.machine import State, state_now, this_machine


def test_this_machine_is_what_psutil_says() -> None:
    machine = this_machine()
    assert machine.cores == len(os.sched_getaffinity(0))
    assert machine.memory_gb == pytest.approx(psutil.virtual_memory().total / 1e9, abs=0.1)
    assert machine.versions["edgecap"]
    assert machine.differences(machine) == []
    assert machine.updates(machine) == []


def test_another_processor_gpu_or_memory_is_another_machine() -> None:
    machine = this_machine()
    other = msgspec.structs.replace(
        machine, cpu="Cortex-A78AE", gpu="Orin", memory_gb=7.6, power_mode="15W"
    )
    told = "; ".join(machine.differences(other))
    for word in ("Cortex-A78AE", "Orin", "memory", "15W"):
        assert word in told
    newer = msgspec.structs.replace(machine, python="3.99.0")
    assert machine.differences(newer) == []
    assert machine.updates(newer) == [f"python {machine.python} and 3.99.0"]


def test_state_of_a_board(tmp_path: Path) -> None:
    for name, text in {
        "sys/class/thermal/thermal_zone0/temp": "48500",
        "sys/class/thermal/thermal_zone1/temp": "51250",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil",
        "sys/devices/system/cpu/cpu10/cpufreq/scaling_cur_freq": "729600",
        "sys/devices/system/cpu/cpu2/cpufreq/scaling_cur_freq": "1190400",
        "sys/devices/system/cpu/cpuidle/current_driver": "none",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    found = state_now(tmp_path)
    assert found.temperature == 51.2
    assert found.clocks_mhz == [1510.4, 1190.4, 729.6]
    assert found.governors == ["schedutil"]


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = state_now(tmp_path)
    assert msgspec.structs.replace(found, load=None) == State(None, None, None, None)


WATCHED = """
from edgecap.bench.usage import Watch, busy_seconds, peak_megabytes, reset_peak
reset = reset_peak()
before = peak_megabytes()
begin = busy_seconds()
with Watch() as watch:
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    while busy_seconds() - begin < 0.2:  # until the kernel's ticks have told of it
        sum(range(10_000))
    del block
assert watch.usage is not None
assert watch.usage.cpu_percent > 0
assert watch.usage.gpu_percent is None
if reset:
    assert watch.usage.peak_rss_mb >= before + 60, (watch.usage, before)
"""


def test_a_watch_sees_the_processor_and_the_memory_that_were_used() -> None:
    """In a process of its own, whose memory nothing else gives back meanwhile."""
    done = subprocess.run([sys.executable, "-c", WATCHED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
