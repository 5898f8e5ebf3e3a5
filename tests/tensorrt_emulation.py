"""TensorRT's run-time API over ONNX Runtime, and a GPU's memory in this machine's own.

What the TensorRT engine does with shapes, addresses and copies is then the real thing: an address
is an address of the host, every copy is checked against what was allocated, and a "plan" is an
ONNX graph that ONNX Runtime computes from and into those addresses.
"""

from __future__ import annotations

import ctypes
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.cuda_memory import Device, Pinned
from edgecap.runtime.engines.onnx import describe_graph
from edgecap.runtime.engines.tensorrt_library import Library
from edgecap.runtime.engines.tensorrt_plan import ROLES, Profile, Sidecar, paths

DEVICE = Device("Orin", "8.7")
VERSION = "10.3.0"
ORT_TYPES = {
    "tensor(float)": "FLOAT",
    "tensor(float16)": "HALF",
    "tensor(int64)": "INT64",
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
}


class HostCuda:
    """``Cuda`` over numpy arrays; a call outside ``current`` or outside an allocation fails.

    ``calls`` counts them by name. Each ``another`` has a stream of its own over the same memory.
    """

    def __init__(self, device: Device = DEVICE) -> None:
        self.device, self.stream = device, 77
        self.blocks: dict[int, np.ndarray] = {}
        self.pins: dict[int, np.ndarray] = {}
        self.calls: Counter[str] = Counter()
        self.streams = [77]
        self.here = threading.local()

    @property
    def inside(self) -> int:
        return getattr(self.here, "depth", 0)

    @contextmanager
    def current(self) -> Iterator[None]:
        self.here.depth = self.inside + 1
        yield
        self.here.depth -= 1

    def another(self) -> HostCuda:
        twin = copy(self)
        twin.stream = self.streams[-1] + 1
        self.streams.append(twin.stream)
        return twin

    def memory(self) -> tuple[int, int]:
        return 3_000_000, 8_000_000

    def allocate(self, size: int) -> int:
        assert self.inside
        self.calls["allocate"] += 1
        room = np.zeros(max(size, 1) + 255, np.uint8)
        block = room[-room.ctypes.data % 256 :][: max(size, 1)]  # as a driver aligns it
        self.blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        assert self.inside
        self.blocks.pop(address)

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> Pinned:
        assert self.inside
        self.calls["pinned"] += 1
        array = np.zeros(shape, dtype)
        raw = array.reshape(-1).view(np.uint8)
        self.pins[array.ctypes.data] = raw
        return Pinned(array, array.ctypes.data)

    def free_pinned(self, pinned: Pinned) -> None:
        assert self.inside
        self.pins.pop(pinned.address)

    def upload(self, address: int, array: np.ndarray) -> None:
        assert array.flags.c_contiguous
        self.calls["upload"] += 1
        self.check(address, array.nbytes)
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def download(self, array: np.ndarray, address: int) -> None:
        self.calls["download"] += 1
        self.check(address, array.nbytes)
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, to: int, source: int, size: int) -> None:
        self.calls["copy"] += 1
        self.check(to, size)
        self.check(source, size)
        ctypes.memmove(to, source, size)

    def synchronize(self) -> None:
        assert self.inside
        self.calls["synchronize"] += 1

    def check(self, address: int, size: int) -> None:
        assert self.inside
        known = [*self.blocks.items(), *self.pins.items()]
        good = any(at <= address and address + size <= at + len(b) for at, b in known)
        assert good, f"{size} bytes at {address} are not allocated"


def library(cuda: HostCuda, version: str = VERSION) -> Library:
    """A module like ``tensorrt`` whose engines compute on ``cuda``."""

    class DataType(IntEnum):
        FLOAT, HALF, INT64, INT32, BOOL, UINT8, INT8 = range(7)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    class Context:
        def __init__(self, session: ort.InferenceSession) -> None:
            self.session = session
            self.shapes: dict[str, tuple[int, ...]] = {}
            self.addresses: dict[str, int] = {}
            self.users: list[tuple[int, int]] = []

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            self.shapes[name] = tuple(shape)
            return True

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, stream: int) -> bool:
            assert stream in cuda.streams
            self.users.append((stream, threading.get_ident()))
            feed = {}
            for node in self.session.get_inputs():
                kind = np.dtype(_numpy_type(node.type))
                array = np.empty(self.shapes[node.name], kind)
                cuda.check(self.addresses[node.name], array.nbytes)
                ctypes.memmove(array.ctypes.data, self.addresses[node.name], array.nbytes)
                feed[node.name] = array
            for node, value in zip(
                self.session.get_outputs(), self.session.run(None, feed), strict=True
            ):
                value = np.ascontiguousarray(value)
                cuda.check(self.addresses[node.name], value.nbytes)
                ctypes.memmove(self.addresses[node.name], value.ctypes.data, value.nbytes)
            return True

    class Engine:
        def __init__(self, session: ort.InferenceSession) -> None:
            self.session = session
            self.tensors = [*session.get_inputs(), *session.get_outputs()]
            self.num_io_tensors = len(self.tensors)

        def get_tensor_name(self, index: int) -> str:
            name: str = self.tensors[index].name
            return name

        def get_tensor_dtype(self, name: str) -> DataType:
            kind = next(t.type for t in self.tensors if t.name == name)
            return DataType[ORT_TYPES[kind]]

        def create_execution_context(self) -> Context:
            return Context(self.session)

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
            try:
                return Engine(session(data))
            except Exception as error:
                self.logger.log(ILogger.ERROR, f"[runtime.cpp::load::12] {error}")
                return None

    module = SimpleNamespace(
        DataType=DataType, ILogger=ILogger, Runtime=Runtime, __version__=version
    )
    return Library(module, "tensorrt", version)


def session(graph: bytes) -> ort.InferenceSession:
    """Operator by operator: ONNX Runtime's rewriting of float16 Q and DQ changes results."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _numpy_type(kind: str) -> str:
    names = {"FLOAT": "float32", "HALF": "float16", "INT64": "int64", "BOOL": "bool"}
    return {**names, "UINT8": "uint8"}[ORT_TYPES[kind]]


def write_plans(
    folder: Path, bundle: Bundle, graphs: dict[str, bytes] | None = None, **changes: Any
) -> list[Sidecar]:
    """Keep a bundle's graphs, or ``graphs`` by role, as plans that belong to ``DEVICE``."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for role in ROLES:
        file = getattr(bundle.manifest.graphs, role).file
        plan = (graphs or {}).get(role, bundle.files[file])
        table = describe_graph(session(plan), file)
        fields: dict[str, Any] = {
            "model": bundle.manifest.name,
            "role": role,
            "graph_sha256": bundle.manifest.files[file].sha256,
            "preparation": 1,
            "library": "tensorrt",
            "library_version": VERSION,
            "gpu": DEVICE.name,
            "compute_capability": DEVICE.compute_capability,
            "precision": "fp32",
            "profile": Profile((1, 8), (1, 4)),
            "inputs": table.inputs,
            "outputs": table.outputs,
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "plan_bytes": len(plan),
        }
        sidecar = Sidecar(**{**fields, **changes})
        plan_path, path = paths(folder, sidecar)
        plan_path.write_bytes(plan)
        path.write_bytes(msgspec.json.encode(sidecar))
        made.append(sidecar)
    return made
