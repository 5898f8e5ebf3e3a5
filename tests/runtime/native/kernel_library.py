"""The kernels' library for tests: emulated on the CPU, or the real one with a GPU."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.engines.cuda_library import CudaLibrary
from edgecap.runtime.engines.cuda_memory import Cuda, Device

ROOT = Path(__file__).resolve().parents[3]
NATIVE = ROOT / "runtime" / "native"
# Precise arithmetic, as for the CPU's beam search.
FLAGS = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fno-gnu-unique", "-ffp-contract=off"]
FLAGS += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]


class HostCuda:
    """``Cuda`` over the host's memory, for the emulation: the device's addresses are the host's."""

    device = Device("CPU", "8.7")
    stream = 0

    def __init__(self) -> None:
        self._held: dict[int, np.ndarray] = {}

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        yield

    def allocate(self, size: int) -> int:
        memory = np.zeros(size + 256, np.uint8)
        address = -(-memory.ctypes.data // 256) * 256
        self._held[address] = memory
        return address

    def free(self, address: int) -> None:
        del self._held[address]

    def upload(self, address: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self._view(address, array.nbytes)[:] = array.reshape(-1).view(np.uint8)

    def download(self, array: np.ndarray, address: int) -> None:
        assert array.flags.c_contiguous
        array.reshape(-1).view(np.uint8)[:] = self._view(address, array.nbytes)

    def copy(self, to: int, source: int, size: int) -> None:
        self._view(to, size)[:] = self._view(source, size).copy()

    def synchronize(self) -> None:
        return

    def _view(self, address: int, size: int) -> np.ndarray:
        for start, memory in self._held.items():
            if start <= address and address + size <= memory.ctypes.data + memory.nbytes:
                offset = address - memory.ctypes.data
                return memory[offset : offset + size]
        raise AssertionError("an access outside all memory that was allocated")


def sources() -> list[Path]:
    return sorted(NATIVE.glob("*.cu"))


def build_emulated(folder: Path, *extra: str) -> Path:
    """Compile all .cu files with g++ to libedgecap_emulated.so. Skips without g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ on this machine to build the emulated kernels with")
    library = folder / "libedgecap_emulated.so"
    objects = []
    running = []
    for source in sources():
        objects.append(str(folder / f"{source.stem}.o"))
        command = [compiler, *FLAGS, *extra, "-c", "-x", "c++", str(source), "-o", objects[-1]]
        running.append(subprocess.Popen([flag for flag in command if flag != "-shared"]))
    assert [process.wait(300) for process in running] == [0] * len(running)
    subprocess.run([compiler, "-shared", *extra, *objects, "-o", str(library)], check=True)
    return library


def open_emulated(folder: Path) -> tuple[CudaLibrary, Any]:
    """The library of EDGECAP_EMULATED_LIBRARY where it is set, else one built now."""
    path = os.environ.get("EDGECAP_EMULATED_LIBRARY") or build_emulated(folder)
    return CudaLibrary(path), HostCuda()


def open_real() -> tuple[CudaLibrary, Cuda]:
    """The real library and device. Skips, with the reason, where one is absent."""
    from edgecap.runtime.engines.cuda_library import load_library
    from edgecap.runtime.engines.cuda_memory import open_cuda
    from edgecap.runtime.errors import EdgeCapError

    try:
        library, cuda = load_library(), open_cuda()
        with cuda.current():
            library.check_device()
    except EdgeCapError as error:
        pytest.skip(f"no GPU to run the kernels on: {error}")
    return library, cuda
