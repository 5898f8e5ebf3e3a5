"""TensorRT engine: a bundle's two graphs as plans that were built on this machine.

Caches, state and memory stay on the GPU while a caption is decoded: a step sends tokens, parents
and the ancestry mask, and takes logits back. The step's rows of ``append.*`` are copied into their
slots on the device. An engine serves one decode at a time, as ``OnnxEngine`` does.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.cuda_memory import Cuda, open_cuda
from edgecap.runtime.engines.tensorrt_library import Library, Log, dtype_name, load_library
from edgecap.runtime.engines.tensorrt_plan import (
    ROLES,
    Sidecar,
    default_folder,
    find_plan,
    read_plan,
    wanted,
)
from edgecap.runtime.errors import EngineError, OptionsError
from edgecap.runtime.manifest import TensorSpec

MAX_CACHED_RUNNERS = 4
Array = npt.NDArray[Any]


class TensorRTEngine:
    """Runs a bundle's graphs with TensorRT on the first CUDA device.

    bundle : a checked bundle
    folder : where its engines are; by default ``default_folder()``
    precision : "fp32", "fp16" or "int8"; by default whichever was built last
    library, cuda : found by themselves where None

    Raises ``EngineError`` where the folder has no engine for this bundle, GPU and TensorRT, and
    ``MissingExtraError`` without TensorRT, cuda-python or PyCUDA.
    """

    def __init__(
        self,
        bundle: Bundle,
        folder: Path | None = None,
        *,
        precision: str | None = None,
        library: Library | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        manifest = bundle.manifest
        self.image_size = manifest.image.size
        self.vocab_size = manifest.tokenizer.vocab_size
        self.max_positions = manifest.max_positions
        library = library if library is not None else load_library()
        self._cuda = cuda if cuda is not None else open_cuda()
        folder = folder if folder is not None else default_folder()
        loaded = {}
        with self._cuda.current():
            for role in ROLES:
                want = wanted(bundle, role, library, self._cuda.device, precision)
                path, sidecar = find_plan(folder, want, str(bundle.path))
                precision = sidecar.precision  # the decoder's is the encoder's
                loaded[role] = LoadedPlan(library, self._cuda, path, sidecar)
        self._encoder, self._decoder = loaded["encoder"], loaded["decoder"]
        self.precision = precision
        self._lock = threading.Lock()
        self._pictures: OrderedDict[int, Buffers] = OrderedDict()
        self._runners: OrderedDict[tuple[int, int], TensorRTStepRunner] = OrderedDict()

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        """Run the encoder on uint8 [B, S, S, 3] RGB pixels. Safe to call from several threads."""
        batch = len(images)
        self._encoder.check("pictures", batch, self._encoder.sidecar.profile.batch)
        size = self.image_size
        with self._lock, self._cuda.current():
            buffers = self._pictures.pop(batch, None)
            if buffers is None:
                shapes: dict[str, tuple[int, ...]] = {"image": (batch, size, size, 3)}
                for spec in self._encoder.sidecar.outputs:
                    shapes[spec.name] = (batch, *_rest(spec, 1))
                buffers = Buffers(self._cuda, shapes, self._encoder.dtypes)
                _evict(self._pictures)
            self._pictures[batch] = buffers
            buffers.upload("image", images)
            self._encoder.run(buffers.shapes, buffers.addresses)
            named = {spec.name: buffers.download(spec.name) for spec in self._encoder.specs[1]}
            self._cuda.synchronize()
        return Encoded(
            batch=batch,
            memory={name: a for name, a in named.items() if name.startswith("memory.")},
            carry={name: a for name, a in named.items() if name.startswith("carry.")},
            features=named.get("features"),
            novelty=named.get("novelty"),
        )

    def begin(self, encoded: Encoded, beams: int) -> TensorRTStepRunner:
        """Set up a decode of ``encoded`` with K = ``beams``; ends the last one of the same size."""
        profile = self._decoder.sidecar.profile
        self._decoder.check("pictures", encoded.batch, profile.batch)
        self._decoder.check("beams", beams, profile.beams)
        key = (encoded.batch, beams)
        with self._lock, self._cuda.current():
            runner = self._runners.pop(key, None)
            if runner is None:
                runner = TensorRTStepRunner(
                    self._decoder, self._cuda, self._lock, *key, self.max_positions
                )
                _evict(self._runners)
            self._runners[key] = runner
            runner.start(encoded)
        return runner


class LoadedPlan:
    """One deserialised plan and its execution context."""

    def __init__(self, library: Library, cuda: Cuda, path: Path, sidecar: Sidecar) -> None:
        self.sidecar, self._cuda, self._path = sidecar, cuda, path
        self.specs = (sidecar.inputs, sidecar.outputs)
        self._log = Log(library)
        data = read_plan(path, sidecar)
        trt = library.module
        self._runtime = trt.Runtime(self._log.logger)  # lives as long as its engine
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f"{library} does not load {path}: {self._log.reason()}")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(
                f"{path} does not start: {self._log.reason()}; free memory of the GPU, or build "
                "for fewer pictures and beams (--batch, --beams)"
            )
        self.dtypes = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            self.dtypes[name] = dtype_name(library, self._engine.get_tensor_dtype(name))
        said = {spec.name: spec.dtype for specs in self.specs for spec in specs}
        if said != self.dtypes:
            odd = sorted(said.items() ^ self.dtypes.items())[0][0]
            raise EngineError(f"{path} is not the engine of its sidecar: {odd} differs")
        self.inputs = [spec.name for spec in sidecar.inputs]
        self._bound: tuple[object, object] = (None, None)  # what the context was told last

    def check(self, what: str, count: int, span: tuple[int, int]) -> None:
        """Whether the profile holds ``count`` pictures or beams."""
        low, high = span
        if not low <= count <= high:
            option = "--batch" if what == "pictures" else "--beams"
            raise OptionsError(
                f"{count} {what} at once; this engine takes {low} to {high}: "
                f"build it with {option} {min(low, count)}..{max(high, count)}"
            )

    def run(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        """Queue one run. ``shapes`` may hold more than the inputs."""
        self._log.clear()
        context, good = self._context, True
        if shapes is not self._bound[0]:
            good = all(context.set_input_shape(name, shapes[name]) for name in self.inputs)
        if addresses is not self._bound[1]:
            good &= all(context.set_tensor_address(name, addresses[name]) for name in self.dtypes)
        self._bound = (shapes, addresses) if good else (None, None)
        if not good or not context.execute_async_v3(self._cuda.stream):
            raise EngineError(f"{self._path} failed to run: {self._log.reason()}")


class Buffers:
    """Device memory by tensor name, and the host arrays that go to and from it."""

    def __init__(
        self, cuda: Cuda, shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]
    ) -> None:
        self._cuda = cuda
        self.shapes = dict(shapes)
        self.dtypes = {name: np.dtype(dtypes[name]) for name in shapes}
        self.addresses = {
            name: cuda.allocate(int(np.prod(shape)) * self.dtypes[name].itemsize)
            for name, shape in shapes.items()
        }
        self._sent: dict[str, Array] = {}

    def upload(self, name: str, values: Array | int) -> None:
        """Send values in the tensor's own dtype and shape."""
        array = np.ascontiguousarray(values, self.dtypes[name]).reshape(self.shapes[name])
        self._sent[name] = array  # alive until the copy is done
        self._cuda.upload(self.addresses[name], array)

    def download(self, name: str) -> Array:
        """A new array that is filled once the stream is synchronised."""
        array = np.empty(self.shapes[name], self.dtypes[name])
        self._cuda.download(array, self.addresses[name])
        return array

    def close(self) -> None:
        for address in self.addresses.values():
            self._cuda.free(address)
        self.addresses = {}


class TensorRTStepRunner:
    """Decoder steps over memory of the GPU. Made by ``TensorRTEngine.begin``."""

    def __init__(
        self,
        plan: LoadedPlan,
        cuda: Cuda,
        lock: threading.Lock,
        batch: int,
        beams: int,
        max_positions: int,
    ) -> None:
        self._plan, self._cuda, self._lock = plan, cuda, lock
        self._batch, self._beams, self._positions = batch, beams, max_positions
        rows, slots = batch * beams, beams * max_positions
        shapes: dict[str, tuple[int, ...]] = {}
        for spec in (*plan.sidecar.inputs, *plan.sidecar.outputs):
            kind = spec.name.partition(".")[0]
            if kind == "position":
                shapes[spec.name] = ()
            elif kind == "ancestry":
                shapes[spec.name] = (rows, slots)
            elif kind == "memory":
                shapes[spec.name] = (batch, *_rest(spec, 1))
            elif kind == "cache":
                shapes[spec.name] = (batch, slots, *_rest(spec, 2))
            else:  # token, parent, carry.*, logits, next.*, append.*
                shapes[spec.name] = (rows, *_rest(spec, 1))
        self._buffers = Buffers(cuda, shapes, plan.dtypes)
        self._memory = [name for name in shapes if name.startswith("memory.")]
        self._carry = [name for name in shapes if name.startswith("carry.")]
        self._appends = [name for name in shapes if name.startswith("append.")]
        there = dict(self._buffers.addresses)
        self._addresses = [there]
        if self._carry:
            # The recurrent state goes to and fro between two sets of buffers.
            back = dict(there)
            for name in self._carry:
                after = "next." + name.removeprefix("carry.")
                back[name], back[after] = there[after], there[name]
            self._addresses.append(back)

    def start(self, encoded: Encoded) -> None:
        """Send the pictures' memory and their first recurrent state, tiled over the beams."""
        for name in self._memory:
            self._buffers.upload(name, encoded.memory[name])
        for name in self._carry:
            self._buffers.upload(name, np.repeat(encoded.carry[name], self._beams, axis=0))

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """See ``StepRunner.step``."""
        buffers = self._buffers
        given: dict[str, Array | int] = {
            "token": tokens,
            "position": position,
            "parent": parents,
            "ancestry": ancestry,
        }
        with self._lock, self._cuda.current():
            for name, values in given.items():
                if name in buffers.addresses:
                    buffers.upload(name, values)
            addresses = self._addresses[position % len(self._addresses)]
            self._plan.run(buffers.shapes, addresses)
            for name in self._appends:
                self._append(name, position)
            logits = buffers.download("logits")
            self._cuda.synchronize()
        return logits

    def close(self) -> None:
        """Free the memory of the GPU; the runner is of no use afterwards."""
        self._buffers.close()

    def _append(self, name: str, position: int) -> None:
        """Copy this step's rows [B, K, ...] into slots [B, position, K, ...] of the cache."""
        buffers = self._buffers
        cache = buffers.addresses["cache." + name.removeprefix("append.")]
        width = int(np.prod(buffers.shapes[name][1:])) * buffers.dtypes[name].itemsize
        block = self._beams * width
        for picture in range(self._batch):
            slot = cache + (picture * self._positions + position) * block
            self._cuda.copy(slot, buffers.addresses[name] + picture * block, block)


def _evict(kept: OrderedDict[Any, Any]) -> None:
    """Make room for one more, freeing what was used longest ago."""
    while len(kept) >= MAX_CACHED_RUNNERS:
        kept.popitem(last=False)[1].close()


def _rest(spec: TensorSpec, skip: int) -> tuple[int, ...]:
    return tuple(int(side) for side in spec.shape[skip:])
