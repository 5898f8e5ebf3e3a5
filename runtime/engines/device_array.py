"""What an encoder leaves on the GPU for the decoder behind it, without a way through the host.

A block of memory belongs to one ``Encoded`` and goes back to its pool once nothing refers to it:
frames after the first few allocate nothing.
"""

from __future__ import annotations

import weakref
from collections import deque
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.engines.cuda_memory import Cuda

MOST_FREE = 4  # blocks that wait to be used again


class Block:
    """Memory of the device that is used until nothing refers to it."""

    def __init__(self, pool: DevicePool, address: int) -> None:
        self.pool, self.address = pool, address


class DevicePool:
    """Blocks of one device's memory. ``take`` stands inside ``cuda.current``.

    cuda : its stream orders what blocks are taken for, and downloads
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self._free: deque[tuple[int, int]] = deque()  # size and address, longest unused first
        # Not at the end of the process, when the driver may be gone.
        weakref.finalize(self, _free_all, cuda, self._free).atexit = False

    def take(self, size: int) -> Block:
        """A block of ``size`` bytes. What lies in it is of no use."""
        address = self._again(size)
        if address is None:
            address = self.cuda.allocate(size)
        block = Block(self, address)
        # A garbage collector may run anywhere: it only notes the block, and frees nothing.
        weakref.finalize(block, self._free.append, (size, address)).atexit = False
        return block

    def _again(self, size: int) -> int | None:
        """The address of a free block of that size; too many that are free are let go."""
        for _ in range(len(self._free)):
            free, address = self._free.popleft()
            if free == size:
                return address
            self._free.append((free, address))
        while len(self._free) > MOST_FREE:
            self.cuda.free(self._free.popleft()[1])
        return None


class DeviceArray:
    """An array in a block: C order, ``__cuda_array_interface__`` (version 3), no arithmetic.

    ``numpy.asarray`` gives a copy on the host. A slice of the first axis is a view; other indices
    give what numpy gives.
    """

    def __init__(
        self, block: Block, shape: tuple[int, ...], dtype: npt.DTypeLike, offset: int = 0
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.address = block.address + offset
        self._block, self._offset = block, offset

    @property
    def nbytes(self) -> int:
        """Bytes of all values."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, True),
            "strides": None,
            "stream": None,  # what wrote it has been waited for
            "version": 3,
        }

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> DeviceArray | npt.NDArray[Any]:
        rows = index
        if isinstance(index, list) and index == list(range(index[0], index[0] + len(index))):
            rows = slice(index[0], index[0] + len(index))
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            return np.asarray(np.asarray(self)[index])
        start, stop, _ = rows.indices(len(self))
        row = prod(self.shape[1:]) * self.dtype.itemsize
        shape = (max(0, stop - start), *self.shape[1:])
        return DeviceArray(self._block, shape, self.dtype, self._offset + start * row)

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        host = np.empty(self.shape, self.dtype)
        cuda = self._block.pool.cuda
        with cuda.current():
            cuda.download(host, self.address)
            cuda.synchronize()
        return host if dtype is None else host.astype(dtype)


def _free_all(cuda: Cuda, free: deque[tuple[int, int]]) -> None:
    with cuda.current():
        while free:
            cuda.free(free.popleft()[1])
