"""How engines are built with TensorRT 8.6, 10 and 11 and with TensorRT for RTX.

The only module that knows their differences. It asks what the library has and never names what a
release took away: 8.6 needs an explicit batch and has precision flags and no strong typing, 10
has both, 11 has neither flag nor choice and types every network strongly. What runs engines is
the same in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecap.export.tensorrt.sidecar import replace_file
from edgecap.runtime.engines.tensorrt_library import Library, Log, dtype_name
from edgecap.runtime.errors import EngineError
from edgecap.runtime.manifest import TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ConfigOptions:
    """What a builder is told, besides the network.

    workspace : bytes of GPU memory that a layer may use at most
    level : 0 (built quickly) to 5 (runs fastest); the library's own default if None
    low_memory : one build thread and no second stream, for boards with little memory
    version_compatible : a plan that later 10.x releases load, too; it runs slower
    target : compute capability, such as "8.6", for a library that builds for GPUs elsewhere
    """

    workspace: int
    level: int | None = None
    low_memory: bool = False
    version_compatible: bool = False
    target: str | None = None


class Session:
    """A builder and its log; one for each graph."""

    def __init__(self, library: Library) -> None:
        self.library, self.trt = library, library.module
        self.log = Log(library)
        self.builder: Any = self.trt.Builder(self.log.logger)
        if self.builder is None:
            raise EngineError(f"{library} has no builder here: {self.log.reason()}")

    def parse(self, graph: bytes, file: str) -> Any:
        """The network of an ONNX graph. Raises ``EngineError`` with the node that it stops at."""
        network = self.builder.create_network(network_flags(self.trt))
        parser = self.trt.OnnxParser(network, self.log.logger)
        if not parser.parse(graph):
            raise EngineError(f"{self.library} does not parse {file}: {_stopped_at(parser)}")
        return network

    def config(self, precision: str, options: ConfigOptions) -> Any:
        """A builder configuration. Raises ``EngineError`` for a target the library lacks."""
        trt, config = self.trt, self.builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
        for flag in precision_flags(trt, precision):
            config.set_flag(flag)
        if options.version_compatible:
            config.set_flag(self._flag("VERSION_COMPATIBLE"))
        if options.level is not None and hasattr(config, "builder_optimization_level"):
            config.builder_optimization_level = options.level
        if options.low_memory:
            if hasattr(config, "max_aux_streams"):
                config.max_aux_streams = 0
            if hasattr(self.builder, "max_threads"):
                self.builder.max_threads = 1
        if options.target is not None:
            set_target(self.library, config, options.target)
        return config

    def add_profile(self, config: Any, shapes: dict[str, tuple[Shape, Shape, Shape]]) -> None:
        """Least, likeliest and greatest shape of every input that varies."""
        profile = self.builder.create_optimization_profile()
        for name, (least, likely, greatest) in shapes.items():
            profile.set_shape(name, least, likely, greatest)
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"{self.library} refuses the profile {shapes}: {self.log.reason()}")

    def build(self, network: Any, config: Any, cache: Path | None, what: str) -> bytes:
        """The plan. cache : timings of layers, read before and written after, where there are any.

        Raises ``EngineError`` in one line; where memory ran out it says what to lower.
        """
        timings = load_timings(self.library, config, cache)
        plan = self.builder.build_serialized_network(network, config)
        if plan is None:
            if self.log.ran_out_of_memory:
                raise EngineError(
                    f"memory ran out while {what} was built; give a smaller --workspace, such as "
                    "128MiB, and --low-memory, fewer pictures with --batch 1, or end other programs"
                )
            raise EngineError(f"{self.library} does not build {what}: {self.log.reason()}")
        if timings is not None and cache is not None:
            replace_file(cache, bytes(timings.serialize()))
        return bytes(plan)

    def table(self, network: Any) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """The network's inputs and outputs; a side that varies is ``"?"``."""
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        return self._specs(inputs), self._specs(outputs)

    def _specs(self, tensors: Sequence[Any]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(
                tensor.name,
                dtype_name(self.library, tensor.dtype),
                tuple(side if side >= 0 else "?" for side in tensor.shape),
            )
            for tensor in tensors
        )

    def _flag(self, name: str) -> Any:
        flag = getattr(self.trt.BuilderFlag, name, None)
        if flag is None:
            raise EngineError(f"{self.library} has no builder flag {name}; leave the option out")
        return flag


def network_flags(trt: Any) -> int:
    """Bits of ``create_network``: strongly typed where there is a choice, explicit batch in 8."""
    kinds, bits = trt.NetworkDefinitionCreationFlag, 0
    strong = getattr(kinds, "STRONGLY_TYPED", None)
    explicit = getattr(kinds, "EXPLICIT_BATCH", None)
    if strong is not None:
        bits |= 1 << int(strong)
    elif explicit is not None:
        bits |= 1 << int(explicit)
    return bits


def precision_flags(trt: Any, precision: str) -> list[Any]:
    """Flags of a release without strong typing; none where types come from the graph."""
    has_strong = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    has_choice = hasattr(trt.BuilderFlag, "FP16")
    if has_strong or not has_choice or precision == "fp32":
        return []
    names = ["FP16", "OBEY_PRECISION_CONSTRAINTS"] + (["INT8"] if precision == "int8" else [])
    return [getattr(trt.BuilderFlag, name) for name in names if hasattr(trt.BuilderFlag, name)]


def targets(library: Library) -> list[str]:
    """Compute capabilities that a library builds for without such a GPU; none for most."""
    known = getattr(library.module, "ComputeCapability", None)
    names = getattr(known, "__members__", {})
    digits = [name[2:] for name in names if name.startswith("SM")]
    return [f"{text[:-1]}.{text[-1]}" for text in digits]


def set_target(library: Library, config: Any, target: str) -> None:
    """Let the configuration build for a compute capability."""
    if not hasattr(config, "set_compute_capability"):
        return  # it builds for the GPU that is here; the caller has compared
    known = library.module.ComputeCapability
    kind = getattr(known, "SM" + target.replace(".", ""), None)
    if kind is None:
        raise EngineError(
            f"{library} does not build for compute capability {target}; it builds for "
            f"{', '.join(targets(library))}"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(kind, 0):
        raise EngineError(f"{library} refuses compute capability {target}")


def load_timings(library: Library, config: Any, cache: Path | None) -> Any:
    """The timing cache, set in the configuration; None for a library that keeps none."""
    # TensorRT for RTX has the calls and does nothing in them.
    if cache is None or library.is_rtx or not hasattr(config, "create_timing_cache"):
        return None
    try:
        data = cache.read_bytes()
    except OSError:
        data = b""
    timings = config.create_timing_cache(data)
    if timings is None and data:  # damaged, or of another release
        timings = config.create_timing_cache(b"")
    if timings is None or not config.set_timing_cache(timings, ignore_mismatch=False):
        return None
    return timings


def _stopped_at(parser: Any) -> str:
    """The parser's first error: node, operator, and the first line of what it says."""
    if not parser.num_errors:
        return "it gave no reason"
    error = parser.get_error(0)
    node = error.node_name() if hasattr(error, "node_name") else f"number {error.node()}"
    kind = f" ({error.node_operator()})" if hasattr(error, "node_operator") else ""
    lines = [line for line in error.desc().splitlines() if line.strip()]
    return " ".join(f"node {node}{kind}: {' '.join(lines[-2:])}".split())[:300]
