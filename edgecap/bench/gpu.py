"""What NVML tells of an NVIDIA GPU: use, memory, energy."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any


class Gpu:
    """The first GPU, by nvidia-ml-py; NVML is absent or partial on a Jetson.

    name : as the driver says it
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        name = nvml.nvmlDeviceGetName(self._handle)
        self.name = name.decode() if isinstance(name, bytes) else str(name)

    def use(self) -> float | None:
        """Percent of the last moments in which a kernel ran."""
        return self._ask(lambda nvml, gpu: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu))

    def memory_mb(self) -> float | None:
        """Megabytes of this process, or None where the driver does not tell."""

        def ask(nvml: Any, gpu: Any) -> float | None:
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu):
                if process.pid == os.getpid() and process.usedGpuMemory is not None:
                    return float(process.usedGpuMemory) / 1e6
            return None

        return self._ask(ask)

    def joules(self) -> float | None:
        """What the GPU took since its driver was loaded."""
        return self._ask(lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3)

    def close(self) -> None:
        """Let NVML go."""
        self._nvml.nvmlShutdown()

    def _ask(self, question: Callable[[Any, Any], float | None]) -> float | None:
        try:
            return question(self._nvml, self._handle)
        except self._nvml.NVMLError:
            return None


def find_gpu() -> Gpu | None:
    """The first GPU; None without one, without its driver or without nvidia-ml-py."""
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return Gpu(nvml)
    except nvml.NVMLError:
        nvml.nvmlShutdown()
        return None
