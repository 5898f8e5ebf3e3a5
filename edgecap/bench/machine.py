"""What a record was measured on: the machine, and its state before and after."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from edgecap.doctor.machine import board, output, power_mode, text_of
from edgecap.runtime.streams.governor import device_temperature

ROOT = Path("/")
PACKAGES = ("edgecap", "numpy", "onnxruntime", "opencv-python-headless", "tensorrt", "cuda-python")


class Machine(msgspec.Struct, frozen=True):
    """What does not change while a record is made. ``same_as`` tells whether two are one kind."""

    cpu: str
    cores: int  # that this process may use
    memory_gb: float
    architecture: str
    board: str
    gpu: str  # its name, or ""
    power_mode: str  # of a Jetson, as nvpmodel says it
    system: str
    python: str
    versions: dict[str, str]

    def differences(self, other: Machine) -> list[str]:
        """In words, what makes another machine of it; empty for the same kind of machine."""
        told = []
        for name in ("cpu", "cores", "architecture", "board", "gpu", "power_mode"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                told.append(f"{name.replace('_', ' ')} {mine or 'none'} and {theirs or 'none'}")
        # The kernel keeps a little for itself, and how much changes with its version.
        if abs(self.memory_gb - other.memory_gb) > 0.05 * max(self.memory_gb, other.memory_gb):
            told.append(f"memory {self.memory_gb:g} GB and {other.memory_gb:g} GB")
        return told

    def updates(self, other: Machine) -> list[str]:
        """In words, what of the software is not the same."""
        mine = {**self.versions, "python": self.python, "system": self.system}
        theirs = {**other.versions, "python": other.python, "system": other.system}
        return [
            f"{name} {mine.get(name, 'none')} and {theirs.get(name, 'none')}"
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        ]


class State(msgspec.Struct, frozen=True):
    """What changes: None where the machine does not tell.

    temperature : degrees Celsius of the hottest thermal zone
    clocks_mhz : of each core, in the order of their numbers
    governors : the frequency governors that are set, each once
    load : runnable processes over the last minute
    """

    temperature: float | None
    clocks_mhz: list[float] | None
    governors: list[str] | None
    load: float | None


def this_machine(gpu: str = "", root: Path = ROOT) -> Machine:
    """The machine this runs on. gpu : the name of the GPU that is used; root : of /proc and /sys"""
    return Machine(
        cpu=_cpu(root),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(_memory_kilobytes(root) * 1024 / 1e9, 1),
        architecture=platform.machine(),
        board=board(root),
        gpu=gpu,
        power_mode=power_mode(),
        system=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
    )


def state_now(root: Path = ROOT) -> State:
    """The machine's state at this moment."""
    temperature = device_temperature(root / "sys/class/thermal")
    return State(
        temperature=None if temperature is None else round(temperature, 1),
        clocks_mhz=_clocks(root) or None,
        governors=_governors(root) or None,
        load=_load(),
    )


def source_commit() -> str:
    """The commit of the checkout that this code lies in, "-dirty" with changes; else ""."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""
    return output(["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"])


def _cpu(root: Path) -> str:
    for line in text_of(root / "proc/cpuinfo").splitlines():
        title, _, text = line.partition(":")
        if title.strip().lower() in ("model name", "hardware"):
            return text.strip()
    return platform.processor() or platform.machine()


def _memory_kilobytes(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", text_of(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) if found else 0


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _core_folders(root: Path) -> list[Path]:
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*")
    return sorted(folders, key=lambda folder: int(folder.name[3:]))


def _clocks(root: Path) -> list[float]:
    """By cpufreq, or as the processor tells where there is none, as in a virtual machine."""
    told = [text_of(folder / "cpufreq/scaling_cur_freq") for folder in _core_folders(root)]
    found = [round(int(text) / 1e3, 1) for text in told if text.isdigit()]
    if found:
        return found
    lines = re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text_of(root / "proc/cpuinfo"), re.MULTILINE)
    return [round(float(text), 1) for text in lines]


def _governors(root: Path) -> list[str]:
    told = {text_of(folder / "cpufreq/scaling_governor") for folder in _core_folders(root)}
    return sorted(told - {""})


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
