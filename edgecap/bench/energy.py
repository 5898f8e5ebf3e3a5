"""Joules that a run took, where the machine has a meter that may be read.

A Jetson's power monitor (the INA3221's rails in hwmon, or ``tegrastats``) is read several times a
second and summed up; counters of energy are read twice: RAPL of Intel's and AMD's processors, and
NVML's of an NVIDIA GPU. All include what the machine takes when it idles.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol

from edgecap.bench.gpu import Gpu
from edgecap.doctor.machine import text_of

ROOT = Path("/")
# The rail that feeds the whole: Orin Nano and NX, Thor, Nano and TX.
WHOLE = ("VDD_IN", "VIN", "POM_5V_IN")
PARTS = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")  # AGX Orin has no rail for the whole
PERIOD = 0.2  # seconds between looks at a power that has no counter


class Meter(Protocol):
    """Something that can be asked for energy.

    name : what it covers, for people
    """

    name: str

    def start(self) -> None:
        """Begin to count."""

    def stop(self) -> float | None:
        """Joules since ``start``; None where it failed meanwhile."""


class Rapl:
    """The energy counters of the processor packages."""

    def __init__(self, zones: Sequence[Path]) -> None:
        self.name = f"processor ({len(zones)} package{'s' * (len(zones) > 1)}, RAPL)"
        self._zones = zones
        self._begin: list[int] = []

    def start(self) -> None:
        self._begin = [_whole(zone / "energy_uj") for zone in self._zones]

    def stop(self) -> float | None:
        joules = 0.0
        for zone, before in zip(self._zones, self._begin, strict=True):
            after, most = _whole(zone / "energy_uj"), _whole(zone / "max_energy_range_uj")
            if min(before, after) < 0:
                return None
            # The counter goes round; a run that takes longer than a round would be told too little.
            joules += ((after - before) if after >= before else (after + most - before)) / 1e6
        return joules


class Rails:
    """Power rails of a Jetson's INA3221, summed up over time.

    rails : (voltage file in mV, current file in mA) of each
    """

    def __init__(self, name: str, rails: Sequence[tuple[Path, Path]]) -> None:
        self.name = name
        self._rails = rails
        self._sum = _Integral(self.watts)

    def watts(self) -> float | None:
        """The power of all rails at this moment."""
        told = [(_whole(voltage), _whole(current)) for voltage, current in self._rails]
        if any(min(pair) < 0 for pair in told):
            return None
        return sum(voltage * current for voltage, current in told) / 1e6

    def start(self) -> None:
        self._sum.start()

    def stop(self) -> float | None:
        return self._sum.stop()


class Tegrastats:
    """What ``tegrastats`` tells of the whole module, where the rails cannot be read."""

    def __init__(self, program: str) -> None:
        self.name = "module (VDD_IN, tegrastats)"
        self._words = [program, "--interval", str(int(PERIOD * 1e3))]
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._watts: float | None = None
        self._sum = _Integral(lambda: self._watts)

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reader = threading.Thread(target=self._read, name="tegrastats", daemon=True)
        self._reader.start()
        self._sum.start()

    def stop(self) -> float | None:
        joules = self._sum.stop()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        if self._reader is not None:
            self._reader.join()
        return joules

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._watts = tegrastats_watts(line)


class GpuCounter:
    """NVML's counter of a whole GPU."""

    def __init__(self, gpu: Gpu) -> None:
        self.name = f"GPU ({gpu.name}, NVML)"
        self._gpu = gpu
        self._begin: float | None = None

    def start(self) -> None:
        self._begin = self._gpu.joules()

    def stop(self) -> float | None:
        after = self._gpu.joules()
        return None if after is None or self._begin is None else after - self._begin


def tegrastats_watts(line: str) -> float | None:
    """The module's power out of a line of ``tegrastats``: ``VDD_IN 4567mW/4500mW`` is 4.567 W."""
    told = {name: int(now) / 1e3 for name, now in re.findall(r"(\w+) (\d+)(?:mW)?/\d+", line)}
    whole = next((told[name] for name in WHOLE if name in told), None)
    if whole is not None:
        return whole
    parts = [told[name] for name in PARTS if name in told]
    return sum(parts) if parts else None


def find_meters(gpu: Gpu | None = None, root: Path = ROOT) -> list[Meter]:
    """The meters of this machine that can be read. root : of /sys"""
    rails = find_rails(root)
    if rails is not None:
        return [rails]  # of the whole module, its GPU included
    program = shutil.which("tegrastats")
    if program is not None:
        return [Tegrastats(program)]
    meters: list[Meter] = []
    zones = [
        zone
        for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if zone.name.count(":") == 1
        and text_of(zone / "name").startswith("package")
        and _whole(zone / "energy_uj") >= 0
    ]
    if zones:
        meters.append(Rapl(zones))
    if gpu is not None and gpu.joules() is not None:
        meters.append(GpuCounter(gpu))
    return meters


def find_rails(root: Path = ROOT) -> Rails | None:
    """The rails of a Jetson that make up the whole module."""
    found: dict[str, tuple[Path, Path]] = {}
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if text_of(folder / "name") != "ina3221":
            continue
        for label in folder.glob("in*_label"):
            number = label.name[2 : -len("_label")]
            pair = (folder / f"in{number}_input", folder / f"curr{number}_input")
            if all(_whole(path) >= 0 for path in pair):
                found[text_of(label)] = pair
    for name in WHOLE:
        if name in found:
            return Rails(f"module ({name}, INA3221)", [found[name]])
    parts = [name for name in PARTS if name in found]
    if not parts:
        return None
    return Rails(f"module ({' + '.join(parts)}, INA3221)", [found[name] for name in parts])


class Metering:
    """Counts with every meter inside a ``with`` block; ``joules`` then has what each says."""

    def __init__(self, meters: Sequence[Meter]) -> None:
        self._meters = meters
        self.joules: dict[str, float] = {}

    def __enter__(self) -> Metering:
        for meter in self._meters:
            meter.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for meter in self._meters:
            joules = meter.stop()
            if joules is not None:
                self.joules[meter.name] = joules


class _Integral:
    """Sums up a power over time in a thread of its own, each look standing until the next."""

    def __init__(self, watts: Callable[[], float | None]) -> None:
        self._watts = watts
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._joules = 0.0
        self._seen = 0

    def start(self) -> None:
        self._done.clear()
        self._joules, self._seen = 0.0, 0
        self._thread = threading.Thread(target=self._work, name="power", daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()
        return self._joules if self._seen else None

    def _work(self) -> None:
        last, power = time.monotonic(), self._watts()
        while True:
            ended = self._done.wait(PERIOD)
            now = time.monotonic()
            if power is not None:
                self._joules += power * (now - last)
                self._seen += 1
            last = now
            if ended:
                return
            power = self._watts()


def _whole(path: Path) -> int:
    """A small file's whole number; -1 where it cannot be read."""
    text = text_of(path)
    return int(text) if text.isascii() and text.isdigit() else -1
