"""The GPU, its driver, CUDA, TensorRT, and whether the compiled kernels run on it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

from edgecap.doctor.machine import output, package_version
from edgecap.runtime.engines.cuda_memory import Device, driver_problem, megabytes, open_cuda
from edgecap.runtime.errors import EdgeCapError

WHILE_NODES = (12, 4)  # CUDA of conditional graph nodes


def gpu_facts() -> dict[str, str]:
    """Title -> what is here, in words."""
    problem = driver_problem()
    facts = {"gpu": problem, "driver": "none" if problem else "loads"}
    if not problem:
        facts |= _through_the_driver()
        facts |= _through_nvml()
    facts["cuda toolkit"] = toolkit()
    facts["cuda packages"] = packages()
    facts["tensorrt"] = tensorrt()
    facts["kernels"] = kernels(problem)
    return facts


def toolkit() -> str:
    """The version of nvcc, which builds the kernels for the GPU that is here."""
    told = output(["nvcc", "--version"]) or output(["/usr/local/cuda/bin/nvcc", "--version"])
    found = re.search(r"release ([\d.]+)", told)
    return f"nvcc {found[1]}" if found else "no nvcc"


def packages() -> str:
    """Python's packages for a GPU."""
    names = ("cuda-python", "pycuda", "nvidia-ml-py")
    found = [f"{name} {version}" for name in names if (version := package_version(name))]
    return ", ".join(found) or "none: pip install 'edgecap[gpu]', or 'edgecap[jetson]' on a Jetson"


def tensorrt() -> str:
    """Which TensorRT Python finds."""
    from edgecap.runtime.engines.tensorrt_library import LIBRARIES, find_library

    found = [library for name in LIBRARIES if (library := find_library(name))]
    return ", ".join(map(str, found)) or "none"


def describe(device: Device) -> str:
    """A GPU in words."""
    told = [device.name, f"compute capability {device.compute_capability} ({target(device)})"]
    if device.processors:
        told.append(f"{device.processors} multiprocessors")
    if device.integrated:
        told.append("shares the CPU's memory")
    return ", ".join(told)


def target(device: Device) -> str:
    """What nvcc calls a GPU's architecture, such as sm_87."""
    return f"sm_{device.compute_capability.replace('.', '')}"


def graph_loop(driver: str) -> str:
    """How a caption's loop is run with a driver of this CUDA."""
    parts = tuple(int(part) for part in driver.split("."))
    if parts >= WHILE_NODES:
        return "a caption is one graph with a WHILE node"
    return "no WHILE nodes before CUDA 12.4: a caption is an unrolled graph, checked now and then"


def kernels(problem: str) -> str:
    """Whether the library of CUDA kernels loads, what it was built for, and runs here."""
    from edgecap.runtime.engines.cuda_library import load_library

    try:
        library = load_library()
    except EdgeCapError as error:
        return f"not loaded: {error}"
    built = f"{library.path}, code for {', '.join(library.architectures)}"
    if problem:
        return f"{built}; there is no GPU to run them"
    try:
        with open_cuda().current():
            library.check_device()
    except EdgeCapError as error:
        return f"{built}; {error}"
    return f"{built}; they run on this GPU"


def _through_the_driver() -> dict[str, str]:
    try:
        cuda = open_cuda()
        with cuda.current():
            free, total = cuda.memory()
    except EdgeCapError as error:
        return {"gpu": f"not reached: {error}"}
    shared = ", shared with the CPU" if cuda.device.integrated else ""
    return {
        "gpu": describe(cuda.device),
        "driver": f"for CUDA up to {cuda.device.driver}: {graph_loop(cuda.device.driver)}",
        "gpu memory": f"{megabytes(free)} of {megabytes(total)} free{shared}",
    }


def _through_nvml() -> dict[str, str]:
    """What the driver's own monitor adds; it is absent or partial on a Jetson."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return {}
    found = {}
    asked: dict[str, Callable[[Any], str]] = {
        "driver version": lambda handle: str(pynvml.nvmlSystemGetDriverVersion()),
        "gpu power limit": lambda handle: (
            f"{pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1e3:g} W"
        ),
        "gpu temperature": lambda handle: (
            f"{pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)} °C"
        ),
    }
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        for title, ask in asked.items():
            try:
                found[title] = ask(handle)
            except pynvml.NVMLError:
                continue
    except pynvml.NVMLError:
        pass
    finally:
        pynvml.nvmlShutdown()
    return found
