"""Memory of the first CUDA device: a handful of calls through cuda-python or PyCUDA.

Addresses are plain integers, sizes are bytes, and all work goes to one stream. Host arrays are
contiguous, and stay alive and unchanged until ``synchronize``. Calls stand inside ``current``,
which leaves the calling thread's own context as it found it: torch or a user's PyCUDA may have one.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import EngineError, MissingExtraError

Array = npt.NDArray[Any]
DRIVER = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream of others


@dataclass(frozen=True)
class Device:
    """A CUDA device: its name and compute capability, such as ``"8.7"``.

    driver : the newest CUDA that its driver takes, such as ``"12.6"``; empty where not asked
    processors : streaming multiprocessors; 0 where not asked
    integrated : it shares its memory with the CPU, as on a Jetson
    """

    name: str
    compute_capability: str
    driver: str = ""
    processors: int = 0
    integrated: bool = False


@dataclass(frozen=True)
class Pinned:
    """Host memory that the device reaches by itself: copies need no detour, kernels can read it.

    array : the memory, seen by numpy; address : the same memory, seen by the device
    """

    array: Array
    address: int


class Cuda(Protocol):
    """One device and one stream. Every call may raise ``EngineError``."""

    device: Device
    stream: int

    def current(self) -> AbstractContextManager[None]:
        """While it lasts, the device's context is that of the calling thread."""

    def another(self) -> Cuda:
        """The same device and context with a stream of its own."""

    def memory(self) -> tuple[int, int]:
        """Free bytes and all bytes of the device."""

    def allocate(self, size: int) -> int:
        """Memory full of zeros. Raises ``EngineError`` that says how much was needed."""

    def free(self, address: int) -> None: ...

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Pinned:
        """Pinned host memory full of zeros, mapped for the device."""

    def free_pinned(self, pinned: Pinned) -> None:
        """Its array must not be touched afterwards."""

    def upload(self, address: int, array: Array) -> None: ...

    def download(self, array: Array, address: int) -> None: ...

    def copy(self, to: int, source: int, size: int) -> None:
        """From device to device."""

    def synchronize(self) -> None:
        """Wait for all work of the stream."""


def driver_problem() -> str:
    """Why there is no CUDA driver to load; empty where there is one. Takes microseconds."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return f"no CUDA driver on this machine ({DRIVER} does not load)"
    return ""


def open_cuda() -> Cuda:
    """The first device, by cuda-python where it is installed, else by PyCUDA.

    Raises ``MissingExtraError`` without either, ``EngineError`` without a driver or a device.
    """
    failures = []
    for kind in (CudaPython, PyCuda):
        try:
            return kind()
        except ImportError:
            continue
        except EngineError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    raise MissingExtraError(
        "running on the GPU needs cuda-python or PyCUDA: pip install 'edgecap[gpu]'"
    )


def find_device() -> Device | None:
    """The first CUDA device; None without a driver, a device, or a package that asks for it."""
    try:
        return open_cuda().device
    except (EngineError, MissingExtraError):
        return None


def cuda_version(number: int) -> str:
    """CUDA's version as people write it: 12060 is "12.6"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def memory_is_full(size: int, room: tuple[int, int] | None, what: str = "GPU's") -> EngineError:
    """What to say when ``size`` bytes do not fit. room : free and all bytes, where known."""
    there = f"; {megabytes(room[0])} of {megabytes(room[1])} are free" if room else ""
    return EngineError(
        f"the {what} memory is full: {megabytes(size)} were needed{there}. Close other programs, "
        "or use fewer beams, smaller batches or a model of lower precision"
    )


def megabytes(size: int) -> str:
    """A size in words: MB with as many digits as say something."""
    return f"{size / 1e6:.0f} MB" if size >= 10_000_000 else f"{size / 1e6:.2g} MB"


class CudaPython:
    """Through cuda-python, NVIDIA's own binding of the driver."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import driver
        except ImportError:  # before 12.6
            from cuda import cuda as driver
        self._driver: Any = driver
        try:
            self._call("cuInit", 0)
        except RuntimeError as error:  # its own, where there is no driver to load
            raise EngineError(
                f"no CUDA driver: {str(error).splitlines()[0].partition('. ')[0]}"
            ) from None
        handle = self._call("cuDeviceGet", 0)
        self._context = self._call("cuDevicePrimaryCtxRetain", handle)
        kinds = driver.CUdevice_attribute

        def attribute(name: str) -> int:
            kind = getattr(kinds, f"CU_DEVICE_ATTRIBUTE_{name}")
            return int(self._call("cuDeviceGetAttribute", kind, handle))

        name = self._call("cuDeviceGetName", 128, handle)
        major = attribute("COMPUTE_CAPABILITY_MAJOR")
        self.device = Device(
            name=name.split(b"\0")[0].decode(),
            compute_capability=f"{major}.{attribute('COMPUTE_CAPABILITY_MINOR')}",
            driver=cuda_version(int(self._call("cuDriverGetVersion"))),
            processors=attribute("MULTIPROCESSOR_COUNT"),
            integrated=bool(attribute("INTEGRATED")),
        )
        self.stream = self._new_stream()

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._driver, name)(*arguments)
        if int(status) != 0:
            raise EngineError(f"{name} failed: {status.name}")
        return results[0] if len(results) == 1 else (tuple(results) or None)

    def _new_stream(self) -> int:
        """A stream that ends with this object, but not at the end of the process."""
        with self.current():
            made = self._call("cuStreamCreate", NON_BLOCKING)
        weakref.finalize(self, self._driver.cuStreamDestroy, made).atexit = False
        return int(made)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent")

    def another(self) -> CudaPython:
        twin = copy(self)
        twin.stream = twin._new_stream()
        return twin

    def memory(self) -> tuple[int, int]:
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        size = max(size, 1)
        address = int(self._reserve("cuMemAlloc", size))
        self._call("cuMemsetD8Async", address, 0, size, self.stream)
        return address

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Pinned:
        size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        flags = self._driver.CU_MEMHOSTALLOC_DEVICEMAP | self._driver.CU_MEMHOSTALLOC_PORTABLE
        host = int(self._reserve("cuMemHostAlloc", size, flags))
        ctypes.memset(host, 0, size)
        raw: Any = (ctypes.c_uint8 * size).from_address(host)
        array = np.frombuffer(raw, np.dtype(dtype), int(np.prod(shape))).reshape(shape)
        return Pinned(array, int(self._call("cuMemHostGetDevicePointer", host, 0)))

    def free_pinned(self, pinned: Pinned) -> None:
        self._call("cuMemFreeHost", pinned.array.ctypes.data)

    def _reserve(self, name: str, size: int, *rest: Any) -> Any:
        status, result = getattr(self._driver, name)(size, *rest)
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            what = "GPU's" if name == "cuMemAlloc" else "pinned"
            raise memory_is_full(size, self.memory(), what)
        if int(status) != 0:
            raise EngineError(f"{name} failed: {status.name}")
        return result

    def upload(self, address: int, array: Array) -> None:
        self._call("cuMemcpyHtoDAsync", address, array.ctypes.data, array.nbytes, self.stream)

    def download(self, array: Array, address: int) -> None:
        self._call("cuMemcpyDtoHAsync", array.ctypes.data, address, array.nbytes, self.stream)

    def copy(self, to: int, source: int, size: int) -> None:
        self._call("cuMemcpyDtoDAsync", to, source, size, self.stream)

    def synchronize(self) -> None:
        self._call("cuStreamSynchronize", self.stream)


class PyCuda:
    """Through PyCUDA, which JetPack users often have."""

    def __init__(self) -> None:
        import pycuda.driver as driver

        self._driver: Any = driver
        self._held: dict[int, Any] = {}  # PyCUDA frees what nothing refers to
        try:
            driver.init()
            found = driver.Device(0)
            self._context = found.retain_primary_context()
            kinds = driver.device_attribute
            major, minor = found.compute_capability()
            self.device = Device(
                name=found.name(),
                compute_capability=f"{major}.{minor}",
                driver=cuda_version(driver.get_driver_version()),
                processors=found.get_attribute(kinds.MULTIPROCESSOR_COUNT),
                integrated=bool(found.get_attribute(kinds.INTEGRATED)),
            )
            self._new_stream()
        except driver.Error as error:
            raise EngineError(f"no CUDA device: {error}") from None

    def _new_stream(self) -> None:
        with self.current():
            self._stream = self._driver.Stream(NON_BLOCKING)
        self.stream = int(self._stream.handle)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()  # PyCUDA ends a thread whose stack of contexts is not empty
        try:
            yield
        finally:
            self._context.pop()

    def another(self) -> PyCuda:
        twin = copy(self)
        twin._new_stream()
        return twin

    def memory(self) -> tuple[int, int]:
        free, total = self._driver.mem_get_info()
        return int(free), int(total)

    def allocate(self, size: int) -> int:
        size = max(size, 1)
        try:
            memory = self._driver.mem_alloc(size)
        except self._driver.MemoryError:
            raise memory_is_full(size, self.memory()) from None
        address = int(memory)
        self._held[address] = memory
        self._driver.memset_d8_async(address, 0, size, self._stream)
        return address

    def free(self, address: int) -> None:
        self._held.pop(address).free()

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Pinned:
        flags = self._driver.host_alloc_flags
        size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
        try:
            raw = self._driver.pagelocked_zeros(
                size, np.uint8, mem_flags=flags.DEVICEMAP | flags.PORTABLE
            )
        except self._driver.MemoryError:
            raise memory_is_full(size, self.memory(), "pinned") from None
        array = np.frombuffer(raw, np.dtype(dtype), int(np.prod(shape))).reshape(shape)
        self._held[array.ctypes.data] = raw.base
        return Pinned(array, int(raw.base.get_device_pointer()))

    def free_pinned(self, pinned: Pinned) -> None:
        self._held.pop(pinned.array.ctypes.data).free()

    def upload(self, address: int, array: Array) -> None:
        self._driver.memcpy_htod_async(address, array.reshape(-1), self._stream)

    def download(self, array: Array, address: int) -> None:
        self._driver.memcpy_dtoh_async(array.reshape(-1), address, self._stream)

    def copy(self, to: int, source: int, size: int) -> None:
        self._driver.memcpy_dtod_async(to, source, size, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()
