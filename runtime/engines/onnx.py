"""ONNX Runtime engine: the two graphs of a bundle with every buffer bound once.

A decoder step is one ``run_with_iobinding`` over memory that stays where it is; around it are only
small copies into that memory. Runners are cached for each (B, K) and share their buffers, so an
engine serves one decode at a time: the next ``begin`` with the same B and K ends the last one.
``Captioner`` holds a lock around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.engines.base import Encoded, RunnerCache
from edgecap.runtime.engines.contract import check_contract, check_tables
from edgecap.runtime.engines.threads import thread_count
from edgecap.runtime.errors import BundleError, OptionsError
from edgecap.runtime.manifest import GraphSpec, TensorSpec

if TYPE_CHECKING:
    import onnxruntime as ort

Provider = str | tuple[str, dict[str, str]]

_ORT_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
# TensorProto.external_data's entry with the key "location", as protobuf writes it.
_EXTERNAL_DATA = b"\x0a\x08location\x12"


class OnnxEngine:
    """Runs a bundle's graphs with ONNX Runtime.

    bundle : a checked bundle; its I/O table is compared with the graphs' real inputs and outputs
    threads : threads for one operator; by default the physical cores at hand, at most 4
    providers : ONNX Runtime execution providers by name, or as (name, options); the CPU alone by
        default

    Raises ``BundleError`` for graphs that do not load or are not what the manifest says, and
    ``OptionsError`` for threads or providers that do not exist.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        providers: Sequence[Provider] | None = None,
    ) -> None:
        manifest = bundle.manifest
        self.image_size = manifest.image.size
        self.vocab_size = manifest.tokenizer.vocab_size
        self.max_positions = manifest.max_positions
        self.threads = thread_count(threads)
        chosen = _providers(providers)
        sessions = {}
        for role, spec in (
            ("encoder", manifest.graphs.encoder),
            ("decoder", manifest.graphs.decoder),
        ):
            model = bundle.files[spec.file]
            sessions[role] = open_session(model, spec.file, self.threads, chosen)
        self._encoder, self._decoder = sessions["encoder"], sessions["decoder"]
        # Those that run: ONNX Runtime leaves out a provider whose libraries do not load.
        self.providers: list[str] = self._encoder.get_providers()
        check_tables(
            manifest,
            describe_graph(self._encoder, manifest.graphs.encoder.file),
            describe_graph(self._decoder, manifest.graphs.decoder.file),
        )
        check_contract(manifest)
        self._inputs = {spec.name: spec for spec in manifest.graphs.decoder.inputs}
        self._outputs = {spec.name: spec for spec in manifest.graphs.decoder.outputs}
        self._encoder_outputs = [spec.name for spec in manifest.graphs.encoder.outputs]
        self._runners: RunnerCache[OnnxStepRunner] = RunnerCache()

    def encode(self, images: npt.NDArray[np.uint8]) -> Encoded:
        """Run the encoder on uint8 [B, S, S, 3] RGB pixels. Safe to call from several threads."""
        outputs = self._encoder.run(self._encoder_outputs, {"image": images})
        named = dict(zip(self._encoder_outputs, outputs, strict=True))
        return Encoded.of(len(images), named)

    def begin(self, encoded: Encoded, beams: int) -> OnnxStepRunner:
        """Set up a decode of ``encoded`` with K = ``beams``; ends the last one of the same size."""
        size = (encoded.batch, beams)
        runner = self._runners.get(
            *size,
            lambda: OnnxStepRunner(
                self._decoder, self._inputs, self._outputs, *size, self.max_positions
            ),
        )
        runner.start(encoded)
        return runner


class OnnxStepRunner:
    """Decoder steps over buffers that are bound once. Made by ``OnnxEngine.begin``."""

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: dict[str, TensorSpec],
        outputs: dict[str, TensorSpec],
        batch: int,
        beams: int,
        max_positions: int,
    ) -> None:
        self._session, self._batch, self._beams = session, batch, beams
        rows, slots = batch * beams, beams * max_positions
        shapes: dict[str, tuple[int, ...]] = {
            "token": (rows,),
            "position": (),
            "parent": (rows,),
            "ancestry": (rows, slots),
        }
        buffers: dict[str, npt.NDArray[Any]] = {}
        for name, spec in inputs.items():
            if name in shapes:
                shape = shapes[name]
            elif name.startswith("cache."):
                shape = (batch, slots, *_rest(spec, 2))
            elif name.startswith("carry."):
                shape = (rows, *_rest(spec, 1))
            else:  # memory.*: the encoder's own arrays are bound, by start()
                continue
            buffers[name] = np.zeros(shape, np.dtype(spec.dtype))
        results = {
            name: np.zeros((rows, *_rest(spec, 1)), np.dtype(spec.dtype))
            for name, spec in outputs.items()
        }
        self._token = buffers["token"]
        self._position = buffers.get("position")
        self._parent = buffers.get("parent")
        self._ancestry = buffers.get("ancestry")
        self._carry = {name: b for name, b in buffers.items() if name.startswith("carry.")}
        self._logits = results["logits"]
        # Pairs of (cache seen as [B, T, K, ...], this step's rows as [B, K, ...]).
        self._appends = [
            (
                buffers["cache." + name.removeprefix("append.")].reshape(
                    batch, max_positions, beams, *result.shape[1:]
                ),
                result.reshape(batch, beams, *result.shape[1:]),
            )
            for name, result in results.items()
            if name.startswith("append.")
        ]
        self._memory = [spec for name, spec in inputs.items() if name.startswith("memory.")]
        self._held: list[npt.NDArray[Any]] = []
        self._bindings = [self._bind(inputs, outputs, buffers, results)]
        if self._carry:
            # The recurrent state goes to and fro between two sets of buffers.
            sources, targets = dict(buffers), dict(results)
            for name, buffer in self._carry.items():
                after = "next." + name.removeprefix("carry.")
                sources[name], targets[after] = results[after], buffer
            self._bindings.append(self._bind(inputs, outputs, sources, targets))
        self._bound = (buffers, results)  # the bindings hold addresses alone

    def start(self, encoded: Encoded) -> None:
        """Bind the pictures' memory and tile their first recurrent state over the beams."""
        self._held = []
        for spec in self._memory:
            array = np.ascontiguousarray(encoded.memory[spec.name])
            self._held.append(array)
            for binding in self._bindings:
                binding.bind_input(
                    spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data
                )
        for name, buffer in self._carry.items():
            buffer[:] = np.repeat(encoded.carry[name], self._beams, axis=0)

    def step(
        self,
        tokens: npt.NDArray[np.int64],
        position: int,
        parents: npt.NDArray[np.int64],
        ancestry: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """See ``StepRunner.step``."""
        self._token[:] = tokens
        if self._position is not None:
            self._position[...] = position
        if self._parent is not None:
            self._parent[:] = parents
        if self._ancestry is not None:
            self._ancestry[:] = ancestry
        self._session.run_with_iobinding(self._bindings[position % len(self._bindings)])
        for cache, rows in self._appends:
            cache[:, position] = rows
        return self._logits

    def _bind(
        self,
        inputs: dict[str, TensorSpec],
        outputs: dict[str, TensorSpec],
        sources: dict[str, npt.NDArray[Any]],
        targets: dict[str, npt.NDArray[Any]],
    ) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name in inputs:
            if name in sources:
                a = sources[name]
                binding.bind_input(name, "cpu", 0, a.dtype.type, a.shape, a.ctypes.data)
        for name in outputs:
            a = targets[name]
            binding.bind_output(name, "cpu", 0, a.dtype.type, a.shape, a.ctypes.data)
        return binding


def open_session(
    model: bytes,
    name: str,
    threads: int,
    providers: Sequence[Provider] = ("CPUExecutionProvider",),
) -> ort.InferenceSession:
    """An ONNX Runtime session set up for latency.

    Its threads go to sleep at the end of a run: spinning on, they would take the cores from
    the other session that runs next, and an encoder right after a decoder needs twice its time.
    """
    import onnxruntime as ort

    if _EXTERNAL_DATA in model:
        raise BundleError(f"{name} keeps weights in another file; export it with them inside")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return ort.InferenceSession(model, options, providers=list(providers))
    except Exception as error:  # its exceptions share no base class
        lines = str(error).splitlines() or ["unknown reason"]
        raise BundleError(f"{name} does not load in ONNX Runtime: {lines[0][:200]}") from None


def describe_graph(session: ort.InferenceSession, file: str) -> GraphSpec:
    """The I/O table of a loaded graph, as the manifest writes it."""

    def table(nodes: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                node.name,
                _ORT_DTYPES.get(node.type, node.type),
                tuple(side if isinstance(side, int | str) else "?" for side in node.shape),
            )
            for node in nodes
        )

    return GraphSpec(file, table(session.get_inputs()), table(session.get_outputs()))


def _providers(providers: Sequence[Provider] | None) -> list[Provider]:
    import onnxruntime as ort

    chosen: list[Provider] = ["CPUExecutionProvider"] if providers is None else [*providers]
    available = ort.get_available_providers()
    for provider in chosen:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise OptionsError(f"no execution provider {name!r} here; {', '.join(available)} are")
    return chosen


def _rest(spec: TensorSpec, skip: int) -> tuple[int, ...]:
    return tuple(int(side) for side in spec.shape[skip:])
