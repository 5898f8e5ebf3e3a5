"""The least time that a machine's memory and arithmetic allow an encoder and a decoder step.

time >= max(bytes / bandwidth, operations / peak), the roofline of Williams, Waterman and Patterson
(2009). Bytes are what a run must read at least: weights once, inputs and outputs once. Bandwidth is
that of reading a block of this very size again and again, so weights that stay in a cache have the
cache's bandwidth. A floor is a bound, not an aim: it says nothing of what stands between products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecap.bench.graph_cost import GraphCost, count_graph, decoder_sizes
from edgecap.bench.rates import Rates, read_rate
from edgecap.bench.step_cost import TOKENS, StepCost, bundle_cost
from edgecap.runtime.bundle import Bundle

# Bytes of a weight, and whether products are in whole numbers, of the CPU's own decoder steps.
NATIVE = {"int8": (1, True), "bf16": (2, False), "fp32": (4, False)}


@dataclass(frozen=True)
class Work:
    """What something has to do, whoever does it.

    read : bytes; integer, floating : operations in whole numbers and in float32
    launches : nodes or kernels that one run starts
    """

    name: str
    read: float
    integer: float
    floating: float
    launches: int

    def floor(self, rates: Rates, bandwidth: float) -> Floor:
        """The least time. bandwidth : bytes a second of reading so many bytes"""
        arithmetic = self.integer / rates.int8 + self.floating / rates.fp32
        return Floor(self, bandwidth, self.read / bandwidth * 1e3, arithmetic * 1e3)


@dataclass(frozen=True)
class Floor:
    """The least time of some work: milliseconds by memory and by arithmetic."""

    work: Work
    bandwidth: float
    memory_ms: float
    arithmetic_ms: float

    @property
    def ms(self) -> float:
        """The larger of the two."""
        return max(self.memory_ms, self.arithmetic_ms)

    @property
    def bound(self) -> str:
        """Which of the two it is."""
        return "memory" if self.memory_ms >= self.arithmetic_ms else "arithmetic"

    def to_dict(self, measured_ms: float | None = None) -> dict[str, Any]:
        """JSON-ready; with the share of the floor in a measured time where there is one."""
        found: dict[str, Any] = {
            "what": self.work.name,
            "megabytes": round(self.work.read / 1e6, 3),
            "integer_mops": round(self.work.integer / 1e6, 2),
            "float_mops": round(self.work.floating / 1e6, 2),
            "launches": self.work.launches,
            "gb_s": round(self.bandwidth / 1e9, 1),
            "memory_ms": round(self.memory_ms, 4),
            "arithmetic_ms": round(self.arithmetic_ms, 4),
            "floor_ms": round(self.ms, 4),
            "bound": self.bound,
        }
        if measured_ms is not None:
            found |= {"ms": round(measured_ms, 4), "reached": round(self.ms / measured_ms, 3)}
        return found


def graph_work(name: str, cost: GraphCost, nodes: int | None = None) -> Work:
    """A graph in ONNX Runtime on the CPU. nodes : that are left after its own rewriting"""
    integer, floating = float(cost.operations(True)), float(cost.operations(False))
    return Work(name, cost.bytes_read(), integer, floating, nodes or cost.nodes)


def native_work(
    cost: StepCost, *, precision: str = "int8", beams: int = 4, tokens: int = TOKENS
) -> Work:
    """A step by the CPU's own kernels, the mean over a caption of ``tokens``.

    precision : one of ``engines.native_step.PRECISIONS``; keys and values are float32
    """
    size, whole = NATIVE[precision]
    past = cost.past * (tokens - 1) / 2
    read = cost.weights * size + cost.rows * beams * size + 4 * (past * beams + cost.memory)
    products = 2.0 * cost.weights * beams
    attention = 2.0 * beams * (past + cost.memory)
    integer, floating = (products, attention) if whole else (0.0, products + attention)
    return Work(f"step, own kernels in {precision}", read, integer, floating, cost.launches)


def encoder_work(bundle: Bundle, batch: int = 1) -> Work:
    """The encoder of a bundle in ONNX Runtime. Needs the package onnx."""
    data = bundle.files[bundle.manifest.graphs.encoder.file]
    return graph_work("encoder in ONNX Runtime", count_graph(data, {"B": batch}), fused_nodes(data))


def own_encoder(bundle: Bundle) -> Work:
    """The encoder of a bundle as the CPU engine runs it in int8: by own kernels where they compute
    it, else in ONNX Runtime. Needs the package onnx where that is so."""
    from edgecap.runtime.engines.cuda_onnx import Unlike
    from edgecap.runtime.engines.encoder_cut import cut_encoder
    from edgecap.runtime.engines.native_encoder import read_own

    size = bundle.manifest.image.size
    model = read_own(bundle)
    try:
        spec = None if model is None else cut_encoder(model, size).spec
    except Unlike:
        spec = None
    if spec is None:
        return encoder_work(bundle)
    read, operations = 3.0 * size * size, {True: 0.0, False: 0.0}
    for made in spec["convolutions"]:
        height, width, _ = made["out"]
        read += made["weight"].size * (1 if made["whole"] else 4)
        operations[made["whole"]] += 2.0 * made["weight"].size * height * width
    for step in spec["steps"]:
        if step["kind"] == "product":
            read += step["weight"].size
            operations[True] += 2.0 * step["weight"].size * step["rows"]
        elif step["kind"] == "attention":
            operations[False] += 4.0 * step["rows"] ** 2 * step["width"]
    launches = len(spec["convolutions"]) + len(spec["steps"])
    return Work("encoder, own kernels in int8", read, operations[True], operations[False], launches)


def decoder_work(bundle: Bundle, beams: int = 4, batch: int = 1) -> Work:
    """A decoder step of a bundle in ONNX Runtime. Needs the package onnx."""
    data = bundle.files[bundle.manifest.graphs.decoder.file]
    cost = decoder_cost(bundle, beams, batch)
    return graph_work("step in ONNX Runtime", cost, fused_nodes(data))


def decoder_cost(bundle: Bundle, beams: int = 4, batch: int = 1) -> GraphCost:
    """A decoder step as its graph says it. Needs the package onnx."""
    data = bundle.files[bundle.manifest.graphs.decoder.file]
    positions = bundle.manifest.max_positions
    return count_graph(data, decoder_sizes(data, batch=batch, beams=beams, positions=positions))


def own_step(bundle: Bundle, *, precision: str | None = None, **options: int) -> Work:
    """A step of a bundle by the CPU's own kernels; ``options`` as in ``native_work``.

    precision : by default the one that the engine takes of itself, int8 where the decoder's weights
        are stored so

    Raises ``EngineError`` for a decoder that they do not compute.
    """
    from edgecap.runtime.engines.onnx_weights import load_model, stores_whole_numbers

    if precision is None:
        file = bundle.manifest.graphs.decoder.file
        whole = stores_whole_numbers(load_model(bundle.files[file], file))
        precision = "int8" if whole else "fp32"
    return native_work(bundle_cost(bundle), precision=precision, **options)


def fused_nodes(data: bytes) -> int:
    """Nodes that compute, after ONNX Runtime's own rewriting of a serialised graph."""
    import tempfile

    import onnx
    import onnxruntime as ort

    from edgecap.bench.graph_cost import SHAPES_ALONE

    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = f"{folder}/graph.onnx"
        options.log_severity_level = 4
        ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(f"{folder}/graph.onnx", load_external_data=False).graph
    return sum(node.op_type not in SHAPES_ALONE for node in graph.node)


def floor_here(work: Work, rates: Rates, read: Callable[[int, int], float] = read_rate) -> Floor:
    """The floor of some work on this machine. read : measures the bandwidth of so many bytes"""
    return work.floor(rates, read(int(work.read), rates.threads))
