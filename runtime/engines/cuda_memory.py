"""Memory of the first CUDA device: a handful of calls through cuda-python or PyCUDA.

Addresses are plain integers, sizes are bytes, and all work goes to one stream. Host arrays are
contiguous, and stay alive and unchanged until ``synchronize``. Calls stand inside ``current``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from edgecap.runtime.errors import EngineError, MissingExtraError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Device:
    """A CUDA device: its name and compute capability, such as ``"8.7"``."""

    name: str
    compute_capability: str


class Cuda(Protocol):
    """One device and one stream. Every call may raise ``EngineError``."""

    device: Device
    stream: int

    def current(self) -> AbstractContextManager[None]:
        """While it lasts, the device's context is that of the calling thread."""

    def allocate(self, size: int) -> int:
        """Memory full of zeros."""

    def free(self, address: int) -> None: ...

    def upload(self, address: int, array: Array) -> None: ...

    def download(self, array: Array, address: int) -> None: ...

    def copy(self, to: int, source: int, size: int) -> None:
        """From device to device."""

    def synchronize(self) -> None:
        """Wait for all work of the stream."""


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
        device = self._call("cuDeviceGet", 0)
        self._context = self._call("cuDevicePrimaryCtxRetain", device)
        name = self._call("cuDeviceGetName", 128, device)
        kinds = driver.CUdevice_attribute
        major, minor = (
            self._call("cuDeviceGetAttribute", kind, device)
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            )
        )
        self.device = Device(name.split(b"\0")[0].decode(), f"{major}.{minor}")
        with self.current():
            self.stream = int(self._call("cuStreamCreate", 0))

    def _call(self, name: str, *arguments: Any) -> Any:
        status, *results = getattr(self._driver, name)(*arguments)
        if int(status) != 0:
            raise EngineError(f"{name} failed: {status.name}")
        return results[0] if results else None

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("cuCtxSetCurrent", self._context)
        yield

    def allocate(self, size: int) -> int:
        address = int(self._call("cuMemAlloc", max(size, 1)))
        self._call("cuMemsetD8Async", address, 0, max(size, 1), self.stream)
        return address

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

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
        try:
            driver.init()
            found = driver.Device(0)
            self._context = found.retain_primary_context()
            major, minor = found.compute_capability()
            self.device = Device(found.name(), f"{major}.{minor}")
            with self.current():
                self._stream = driver.Stream()
        except driver.Error as error:
            raise EngineError(f"no CUDA device: {error}") from None
        self.stream = int(self._stream.handle)
        self._held: dict[int, Any] = {}  # PyCUDA frees what nothing refers to

    @contextmanager
    def current(self) -> Iterator[None]:
        self._context.push()  # PyCUDA ends a thread whose stack of contexts is not empty
        try:
            yield
        finally:
            self._context.pop()

    def allocate(self, size: int) -> int:
        try:
            memory = self._driver.mem_alloc(max(size, 1))
        except self._driver.MemoryError as error:
            raise EngineError(f"the GPU's memory is full: {error}") from None
        address = int(memory)
        self._held[address] = memory
        self._driver.memset_d8_async(address, 0, max(size, 1), self._stream)
        return address

    def free(self, address: int) -> None:
        self._held.pop(address).free()

    def upload(self, address: int, array: Array) -> None:
        self._driver.memcpy_htod_async(address, array.reshape(-1), self._stream)

    def download(self, array: Array, address: int) -> None:
        self._driver.memcpy_dtoh_async(array.reshape(-1), address, self._stream)

    def copy(self, to: int, source: int, size: int) -> None:
        self._driver.memcpy_dtod_async(to, source, size, self._stream)

    def synchronize(self) -> None:
        self._stream.synchronize()
