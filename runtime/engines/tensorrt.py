"""TensorRT engine: a bundle's two graphs as plans that were built on this machine.

What the encoder gives as memory stays on the GPU. So do caches and state while a caption is
decoded: a step sends tokens, parents and the ancestry mask, and takes logits back. The step's rows
of ``append.*`` are copied into their slots on the device. Each thread that encodes has an execution
context and a stream of its own; an engine serves one decode at a time, as ``OnnxEngine`` does.
After the first few pictures of a batch size nothing is allocated on the GPU.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.cuda_memory import Cuda, open_cuda
from edgecap.runtime.engines.device_array import DeviceArray, DevicePool
from edgecap.runtime.engines.tensorrt_context import Buffers, LoadedPlan, rest
from edgecap.runtime.engines.tensorrt_library import Library, load_library
from edgecap.runtime.engines.tensorrt_plan import (
    ROLES,
    Sidecar,
    default_folder,
    find_plan,
    wanted,
)
from edgecap.runtime.errors import EngineError

MAX_CACHED_RUNNERS = 4
MAX_LANES = 4  # execution contexts of the encoder; more threads than that take turns
Array = npt.NDArray[Any]


class TensorRTEngine:
    """Runs a bundle's graphs with TensorRT on the first CUDA device.

    bundle : a checked bundle
    folder : where its engines are; by default ``default_folder()``
    precision : "fp32", "fp16" or "int8"; by default whichever was built last
    steps_later : load the decoder's plan when a step is first wanted, for one who decodes otherwise
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
        steps_later: bool = False,
        library: Library | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        manifest = bundle.manifest
        self.image_size = manifest.image.size
        self.vocab_size = manifest.tokenizer.vocab_size
        self.max_positions = manifest.max_positions
        self.library = library if library is not None else load_library()
        self.cuda = cuda if cuda is not None else open_cuda()
        folder = folder if folder is not None else default_folder()
        self._lock = threading.Lock()
        self._lanes: list[Lane] = []
        self._decoding: Decoding | None = None
        self._found: dict[str, tuple[Path, Sidecar]] = {}
        for role in ROLES:
            want = wanted(bundle, role, self.library, self.cuda.device, precision)
            self._found[role] = find_plan(folder, want, str(bundle.path))
            precision = self._found[role][1].precision  # the decoder's is the encoder's
        self.precision = precision
        with self.cuda.current():
            self._encoder = LoadedPlan(self.library, self.cuda, *self._found["encoder"])
            self._lanes.append(Lane(self._encoder, self.cuda))
        if not steps_later:
            self._steps()
        # Freed with the engine, not at the end of the process, when the driver may be gone.
        weakref.finalize(self, _free_lanes, self.cuda, self._lanes).atexit = False

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        """Run the encoder on uint8 [B, S, S, 3] RGB pixels. Safe to call from several threads."""
        self._encoder.check("pictures", len(images), self._encoder.sidecar.profile.batch)
        lane = self._lane()
        with lane.lock, lane.cuda.current():
            named = lane.run(images)
        return Encoded.of(len(images), named)

    def begin(self, encoded: Encoded, beams: int) -> TensorRTStepRunner:
        """Set up a decode of ``encoded`` with K = ``beams``; ends the last one of the same size."""
        return self._steps().begin(encoded, beams, self.max_positions)

    def _steps(self) -> Decoding:
        with self._lock:
            if self._decoding is None:
                cuda = self.cuda.another()
                with cuda.current():
                    plan = LoadedPlan(self.library, cuda, *self._found["decoder"])
                    self._decoding = Decoding(plan, cuda)
                weakref.finalize(self, _free_runners, cuda, self._decoding.runners).atexit = False
            return self._decoding

    def _lane(self) -> Lane:
        """The calling thread's own lane; one that a thread left behind; else a new one."""
        me = threading.current_thread()
        with self._lock:
            owners = [lane.owner() for lane in self._lanes]
            for lane, owner in zip(self._lanes, owners, strict=True):
                if owner is me:
                    return lane
            for lane, owner in zip(self._lanes, owners, strict=True):
                if owner is None or not owner.is_alive():
                    lane.owner = weakref.ref(me)
                    return lane
            if len(self._lanes) < MAX_LANES:
                try:
                    cuda = self.cuda.another()
                    with cuda.current():
                        lane = Lane(self._encoder, cuda)
                except EngineError:  # no memory for another context: take turns
                    return self._lanes[0]
                lane.owner = weakref.ref(me)
                self._lanes.append(lane)
                return lane
            return self._lanes[threading.get_ident() % MAX_LANES]


def _nobody() -> threading.Thread | None:
    return None


class Lane:
    """One thread's execution context of the encoder, its stream, and buffers by batch size."""

    def __init__(self, plan: LoadedPlan, cuda: Cuda) -> None:
        self.cuda, self.lock = cuda, threading.Lock()
        self._pool = DevicePool(cuda)
        self.owner: Any = _nobody  # calls give the thread, or None once it is gone
        self.pictures: OrderedDict[int, Buffers] = OrderedDict()
        self._plan, self._context = plan, plan.context()

    def run(self, images: npt.NDArray[np.uint8]) -> dict[str, Array | DeviceArray]:
        """What the encoder makes of the pictures, in arrays that stay as they are: memory on the
        GPU, the rest on the host."""
        batch = len(images)
        outputs = self._plan.sidecar.outputs
        kept = {
            spec.name: (batch, *rest(spec, 1))
            for spec in outputs
            if spec.name.startswith("memory.")
        }
        buffers = self.pictures.pop(batch, None)
        if buffers is None:
            shapes = {"image": tuple(images.shape)}
            shapes |= {s.name: (batch, *rest(s, 1)) for s in outputs if s.name not in kept}
            _evict(self.pictures)
            everything = list(shapes)
            buffers = Buffers(self.cuda, shapes, self._plan.dtypes, everything, everything)
        self.pictures[batch] = buffers
        buffers.upload("image", images)
        memory = {name: self._on_device(name, shape) for name, shape in kept.items()}
        places = {name: array.address for name, array in memory.items()}
        self._context.run(self.cuda.stream, buffers.shapes, buffers.addresses | places)
        named = {s.name: buffers.download(s.name) for s in outputs if s.name not in kept}
        self.cuda.synchronize()
        return {**memory, **{name: array.copy() for name, array in named.items()}}

    def _on_device(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        kind = np.dtype(self._plan.dtypes[name])
        return DeviceArray(self._pool.take(prod(shape) * kind.itemsize), shape, kind)


class Decoding:
    """The decoder's plan, its one execution context and stream, and runners by (B, K)."""

    def __init__(self, plan: LoadedPlan, cuda: Cuda) -> None:
        self.plan, self.cuda, self.lock = plan, cuda, threading.Lock()
        self.context = plan.context()
        self.runners: OrderedDict[tuple[int, int], TensorRTStepRunner] = OrderedDict()

    def begin(self, encoded: Encoded, beams: int, max_positions: int) -> TensorRTStepRunner:
        """See ``TensorRTEngine.begin``."""
        profile = self.plan.sidecar.profile
        self.plan.check("pictures", encoded.batch, profile.batch)
        self.plan.check("beams", beams, profile.beams)
        key = (encoded.batch, beams)
        with self.lock, self.cuda.current():
            runner = self.runners.pop(key, None)
            if runner is None:
                _evict(self.runners)
                runner = TensorRTStepRunner(self, *key, max_positions)
            self.runners[key] = runner
            runner.start(encoded)
        return runner


class TensorRTStepRunner:
    """Decoder steps over memory of the GPU. Made by ``TensorRTEngine.begin``."""

    def __init__(self, decoding: Decoding, batch: int, beams: int, max_positions: int) -> None:
        plan = decoding.plan
        self._context, self.cuda, self.lock = decoding.context, decoding.cuda, decoding.lock
        self.batch, self._beams, self._positions = batch, beams, max_positions
        self._encoded: Encoded | None = None
        self.loops: OrderedDict[Any, Any] = OrderedDict()  # of whole captions over these buffers
        rows, slots = batch * beams, beams * max_positions
        shapes: dict[str, tuple[int, ...]] = {}
        for spec in (*plan.sidecar.inputs, *plan.sidecar.outputs):
            kind = spec.name.partition(".")[0]
            if kind == "position":
                shapes[spec.name] = ()
            elif kind == "ancestry":
                shapes[spec.name] = (rows, slots)
            elif kind == "memory":
                shapes[spec.name] = (batch, *rest(spec, 1))
            elif kind == "cache":
                shapes[spec.name] = (batch, slots, *rest(spec, 2))
            else:  # token, parent, carry.*, logits, next.*, append.*
                shapes[spec.name] = (rows, *rest(spec, 1))
        self._memory = [name for name in shapes if name.startswith("memory.")]
        self._carry = [name for name in shapes if name.startswith("carry.")]
        self._appends = [name for name in shapes if name.startswith("append.")]
        small = ("token", "position", "parent", "ancestry", "logits")
        mapped = [name for name in small if name in shapes]
        exchanged = [*mapped, *self._memory, *self._carry]
        self._given = frozenset(mapped) - {"logits"}
        self._buffers = Buffers(self.cuda, shapes, plan.dtypes, exchanged, mapped)
        there = dict(self._buffers.addresses)
        self.addresses = [there]
        if self._carry:
            # The recurrent state goes to and fro between two sets of buffers.
            back = dict(there)
            for name in self._carry:
                after = "next." + name.removeprefix("carry.")
                back[name], back[after] = there[after], there[name]
            self.addresses.append(back)

    def start(self, encoded: Encoded) -> None:
        """Send the pictures' memory and their first recurrent state, tiled over the beams."""
        self.cuda.synchronize()  # a start that no step followed may still be on its way
        self._encoded = encoded  # its memory is not used again while it is copied
        for name in self._memory:
            array: Any = encoded.memory[name]
            if isinstance(array, DeviceArray) and array.dtype == self._buffers.dtypes[name]:
                self.cuda.copy(self._buffers.addresses[name], array.address, array.nbytes)
            else:
                self._buffers.upload(name, np.asarray(array))
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
        with self.lock, self.cuda.current():
            for name, values in given.items():
                if name in self._given:
                    buffers.upload(name, values)
            addresses = self.addresses[position % len(self.addresses)]
            self._context.run(self.cuda.stream, buffers.shapes, addresses)
            for name in self._appends:
                self._append(name, position)
            logits = buffers.download("logits")
            self.cuda.synchronize()
            self.let_go()
        return logits

    def let_go(self) -> None:
        """Say that the pictures' memory has been copied: the work queued so far is done."""
        self._encoded = None

    def queue(self, addresses: dict[str, int]) -> None:
        """Queue one run of the decoder over tensors that lie at ``addresses``."""
        self._context.run(self.cuda.stream, self._buffers.shapes, addresses)

    def appends(self) -> list[tuple[str, int]]:
        """The outputs that go to the caches, and the bytes of a row of each."""
        return [(name, self._row_bytes(name)) for name in self._appends]

    def dtype(self, name: str) -> str:
        """Of a tensor, such as "int64"."""
        return str(self._buffers.dtypes[name].name)

    def keep(self, key: Any, loop: Any) -> None:
        """Have ``loop`` closed with these buffers, or when others are used more."""
        _evict(self.loops)
        self.loops[key] = loop

    def close(self) -> None:
        """Free the memory of the GPU; the runner is of no use afterwards."""
        for loop in self.loops.values():
            loop.close()
        self.loops.clear()
        self._buffers.close()

    def _row_bytes(self, name: str) -> int:
        shape, kind = self._buffers.shapes[name], self._buffers.dtypes[name]
        return int(np.prod(shape[1:])) * kind.itemsize

    def _append(self, name: str, position: int) -> None:
        """Copy this step's rows [B, K, ...] into slots [B, position, K, ...] of the cache."""
        buffers = self._buffers
        cache = buffers.addresses["cache." + name.removeprefix("append.")]
        block = self._beams * self._row_bytes(name)
        for picture in range(self.batch):
            slot = cache + (picture * self._positions + position) * block
            self.cuda.copy(slot, buffers.addresses[name] + picture * block, block)


def _evict(kept: OrderedDict[Any, Any]) -> None:
    """Make room for one more, freeing what was used longest ago."""
    while len(kept) >= MAX_CACHED_RUNNERS:
        kept.popitem(last=False)[1].close()


def _free_lanes(cuda: Cuda, lanes: list[Lane]) -> None:
    with cuda.current():
        for lane in lanes:
            for buffers in lane.pictures.values():
                buffers.close()
            lane.pictures.clear()


def _free_runners(cuda: Cuda, runners: OrderedDict[Any, TensorRTStepRunner]) -> None:
    with cuda.current():
        for runner in runners.values():
            runner.close()
        runners.clear()
