"""A deserialised plan, its execution contexts, and the memory that a run reads and writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.engines.cuda_memory import Cuda, Pinned, megabytes
from edgecap.runtime.engines.tensorrt_library import Library, Log, dtype_name
from edgecap.runtime.engines.tensorrt_plan import Sidecar, read_plan
from edgecap.runtime.errors import EngineError, OptionsError
from edgecap.runtime.manifest import TensorSpec

Array = npt.NDArray[Any]


class LoadedPlan:
    """One deserialised plan; ``context`` makes what runs it. Calls stand inside ``cuda.current``.

    Raises ``EngineError`` for a plan that TensorRT does not load or that its sidecar does not tell.
    """

    def __init__(self, library: Library, cuda: Cuda, path: Path, sidecar: Sidecar) -> None:
        self.sidecar, self.path = sidecar, path
        self.specs = (sidecar.inputs, sidecar.outputs)
        self.inputs = [spec.name for spec in sidecar.inputs]
        self.log = Log(library)
        self._cuda = cuda
        data = read_plan(path, sidecar)
        self._runtime = library.module.Runtime(self.log.logger)  # lives as long as its engine
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f"{library} does not load {path}: {self.log.reason()}{self._room()}")
        self.dtypes = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            self.dtypes[name] = dtype_name(library, self._engine.get_tensor_dtype(name))
        said = {spec.name: spec.dtype for specs in self.specs for spec in specs}
        if said != self.dtypes:
            odd = sorted(said.items() ^ self.dtypes.items())[0][0]
            raise EngineError(f"{path} is not the engine of its sidecar: {odd} differs")

    def context(self) -> PlanContext:
        """A new execution context: TensorRT wants one for each thread."""
        made = self._engine.create_execution_context()
        if made is None:
            raise EngineError(
                f"{self.path} does not start: {self.log.reason()}{self._room()}; free memory of "
                "the GPU, or build for fewer pictures and beams (--batch, --beams)"
            )
        return PlanContext(self, made)

    def check(self, what: str, count: int, span: tuple[int, int]) -> None:
        """Whether the profile holds ``count`` pictures or beams."""
        low, high = span
        if not low <= count <= high:
            option = "--batch" if what == "pictures" else "--beams"
            raise OptionsError(
                f"{count} {what} at once; this engine takes {low} to {high}: "
                f"build it with {option} {min(low, count)}..{max(high, count)}"
            )

    def _room(self) -> str:
        """How much was needed and is there, where memory was what it lacked."""
        if not self.log.ran_out_of_memory:
            return ""
        needed = int(getattr(self._engine, "device_memory_size_v2", 0) or 0)
        needed = needed or int(getattr(self._engine, "device_memory_size", 0) or 0)
        free, total = self._cuda.memory()
        wanted = megabytes(needed + self.sidecar.plan_bytes)
        return f"; about {wanted} were needed, {megabytes(free)} of {megabytes(total)} are free"


class PlanContext:
    """Runs one plan, one run at a time."""

    def __init__(self, plan: LoadedPlan, context: Any) -> None:
        self._plan, self._context = plan, context
        self._bound: tuple[object, object] = (None, None)  # what the context was told last

    def run(
        self, stream: int, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]
    ) -> None:
        """Queue one run. ``shapes`` may hold more than the inputs."""
        plan, context, good = self._plan, self._context, True
        plan.log.clear()
        if shapes is not self._bound[0]:
            good = all(context.set_input_shape(name, shapes[name]) for name in plan.inputs)
        if addresses is not self._bound[1]:
            good &= all(context.set_tensor_address(name, addresses[name]) for name in plan.dtypes)
        self._bound = (shapes, addresses) if good else (None, None)
        if not good or not context.execute_async_v3(stream):
            raise EngineError(f"{plan.path} failed to run: {plan.log.reason()}")


class Buffers:
    """Device memory by tensor name, and the pinned host memory that goes to and from it.

    All of it is allocated here, none by an upload or a download.

    exchanged : the tensors that the host writes or reads
    mapped : those of them that kernels touch once, so that a GPU that shares the CPU's memory works
        in the host's copy itself. The rest it would read again and again past its cache
    """

    def __init__(
        self,
        cuda: Cuda,
        shapes: Mapping[str, tuple[int, ...]],
        dtypes: Mapping[str, str],
        exchanged: Collection[str],
        mapped: Collection[str] = (),
    ) -> None:
        self._cuda = cuda
        self.shapes = dict(shapes)
        self.dtypes = {name: np.dtype(dtypes[name]) for name in shapes}
        self.addresses: dict[str, int] = {}
        self._host: dict[str, Pinned] = {}
        self._shared = {name for name in mapped if cuda.device.integrated}
        try:
            for name, shape in shapes.items():
                if name in exchanged:
                    self._host[name] = cuda.pinned(shape, self.dtypes[name])
                if name in self._shared:
                    self.addresses[name] = self._host[name].address
                else:
                    size = int(np.prod(shape)) * self.dtypes[name].itemsize
                    self.addresses[name] = cuda.allocate(size)
        except EngineError:
            self.close()
            raise

    def upload(self, name: str, values: Array | int) -> None:
        """Send values of the tensor's shape; they may change at once after this call."""
        array = self._host[name].array
        np.copyto(array, np.reshape(values, array.shape), casting="unsafe")
        if name not in self._shared:
            self._cuda.upload(self.addresses[name], array)

    def download(self, name: str) -> Array:
        """The host's copy, right once the stream is synchronised and until the next run."""
        array = self._host[name].array
        if name not in self._shared:
            self._cuda.download(array, self.addresses[name])
        return array

    def close(self) -> None:
        """Free all of it."""
        for name, address in self.addresses.items():
            if name not in self._shared:
                self._cuda.free(address)
        for pinned in self._host.values():
            self._cuda.free_pinned(pinned)
        self.addresses, self._host = {}, {}


def rest(spec: TensorSpec, skip: int) -> tuple[int, ...]:
    """The sides after the first ``skip``, which are fixed."""
    return tuple(int(side) for side in spec.shape[skip:])
