"""What every GPU benchmark needs: the GPU or its emulation, memory through torch, timing, facts."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from record import machine

from edgecap.runtime.engines.cuda_library import CudaLibrary, load_library
from edgecap.runtime.engines.cuda_memory import Device
from edgecap.runtime.errors import EdgeCapError

NATIVE = Path(__file__).parents[2] / "runtime" / "native"
KERNELS = ("*.cu", "*.cuh", "decoder_*.h", "launch.h", "edgecap_cuda.h")


class TorchCuda:
    """``Cuda`` over torch's allocator and current stream, so that both sides share them.

    ``device`` "cpu" is the emulation: addresses are those of the host.
    """

    def __init__(self, device: str) -> None:
        import torch

        self.torch, self.where = torch, device
        self.device = Device("CPU", "8.7")
        if device == "cuda":
            found = torch.cuda.get_device_properties(0)
            capability = f"{found.major}.{found.minor}"
            self.device = Device(found.name, capability, "", found.multi_processor_count)
        self._held: dict[int, Any] = {}

    @property
    def stream(self) -> int:
        return int(self.torch.cuda.current_stream().cuda_stream) if self.where == "cuda" else 0

    @contextmanager
    def current(self) -> Iterator[None]:
        yield

    def allocate(self, size: int) -> int:
        memory = self.torch.zeros(size + 256, dtype=self.torch.uint8, device=self.where)
        address = -(-memory.data_ptr() // 256) * 256
        self._held[address] = memory
        return int(address)

    def free(self, address: int) -> None:
        del self._held[address]

    def synchronize(self) -> None:
        if self.where == "cuda":
            self.torch.cuda.current_stream().synchronize()


class Bench:
    """The library of kernels with torch's device. Raises ``EdgeCapError`` where there is no GPU."""

    def __init__(self, emulated: Path | None = None) -> None:
        import torch

        self.emulated = emulated is not None
        if emulated is not None:
            self.library, self.cuda = CudaLibrary(emulated), TorchCuda("cpu")
            return
        if not torch.cuda.is_available():
            raise EdgeCapError("no GPU: torch finds no CUDA device here")
        self.library = load_library()
        self.cuda = TorchCuda("cuda")
        torch.zeros(1, device="cuda")
        self.library.check_device()

    def facts(self) -> dict[str, Any]:
        """Machine, GPU, driver, versions and the hash of the kernels' sources."""
        import torch

        facts: dict[str, Any] = {**machine(), "torch": torch.__version__}
        facts["gpu"] = "emulated on the CPU" if self.emulated else self.cuda.device.name
        facts["code_for"] = list(self.library.architectures)
        facts["kernels_sha256"] = kernels_hash()
        if not self.emulated:
            from edgecap.doctor.gpu import gpu_facts

            facts |= gpu_facts()
        return facts

    def milliseconds(self, call: Callable[[], object], rounds: int = 50, warm_up: int = 5) -> float:
        """Median time of a call by CUDA's own clock. Not a number for an emulation."""
        import torch

        if self.emulated:
            call()
            return float("nan")
        times = []
        for _ in range(rounds + warm_up):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
        return float(np.median(times[warm_up:]))

    def bandwidth(self) -> float:
        """GB/s of reading and writing one large block, measured."""
        import torch

        if self.emulated:
            return float("nan")
        size = min(1 << 30, torch.cuda.mem_get_info()[0] // 4)
        a = torch.empty(size, dtype=torch.uint8, device="cuda")
        b = torch.empty_like(a)
        return 2 * size / self.milliseconds(lambda: b.copy_(a), 20) / 1e6

    def captured(self, call: Callable[[], object]) -> Callable[[], object]:
        """The call's launches as a CUDA graph to replay; the call itself in an emulation."""
        import torch

        if self.emulated:
            return call
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            call()
        return graph.replay


def kernels_hash() -> str:
    """SHA-256 of the kernels' sources, by name."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in KERNELS for path in NATIVE.glob(pattern)}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def rounded(value: float, digits: int = 4) -> float | None:
    """For a record; None for what was not measured."""
    return None if np.isnan(value) else round(float(value), digits)
