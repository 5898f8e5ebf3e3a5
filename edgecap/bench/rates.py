"""What this machine's memory and arithmetic give at best, measured by numpy and ONNX Runtime.

Memory: STREAM's triad (McCalpin 1995) over arrays that no cache holds, and reading a block of a
given size again and again, as a decoder reads its weights. Arithmetic: square matrix products in
float32 and in whole numbers. The best of several rounds counts, since noise only takes away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 1024  # of the square matrices
TRIAD = 1 << 24  # numbers of each of the three arrays: 128 MB
BLOCK = 1 << 14  # numbers that numpy takes at a time: three such blocks fit into a cache of 512 KB
NODES = 256
ROUNDS = 7


@dataclass(frozen=True)
class Rates:
    """What was measured with a number of threads.

    triad : bytes a second, 24 for each number: two read, one written
    read : bytes read a second from a block of ``read_bytes``
    fp32, int8 : operations a second of a matrix product, a multiply-add being two
    node_us : microseconds of a node of ONNX Runtime that computes next to nothing
    """

    threads: int
    triad: float
    read: float
    read_bytes: int
    fp32: float
    int8: float
    node_us: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; rates with three digits."""
        whole = ("threads", "read_bytes")
        return {
            name: value if name in whole else float(f"{value:.3g}")
            for name, value in asdict(self).items()
        }


def measure_rates(threads: int, read_bytes: int = 1 << 28) -> Rates:
    """Measure all. read_bytes : the block that is read, by default one that no cache holds

    Takes some seconds and 0.4 GB. Needs the package onnx.
    """
    return Rates(
        threads=threads,
        triad=triad_rate(threads),
        read=read_rate(read_bytes, threads),
        read_bytes=read_bytes,
        fp32=product_rate(threads, integer=False),
        int8=product_rate(threads, integer=True),
        node_us=node_cost(threads),
    )


def triad_rate(threads: int, count: int = TRIAD) -> float:
    """Bytes a second of a = b + 3 c on arrays of ``count`` float64."""
    a, b, c = np.zeros(count), np.ones(count), np.full(count, 2.0)
    parts = np.array_split(np.arange(0, count, BLOCK), threads)

    def work(index: int) -> None:
        for start in parts[index]:
            piece = slice(int(start), int(start) + BLOCK)
            np.multiply(c[piece], 3.0, out=a[piece])
            np.add(a[piece], b[piece], out=a[piece])

    best = _best(work, threads, 3)
    if not (a[0] == a[-1] == 7.0):
        raise AssertionError("the triad is wrong")
    return 24 * count / best


def read_rate(size: int, threads: int, total: int = 1 << 28) -> float:
    """Bytes a second of reading the same ``size`` bytes again and again, a part for each thread.

    total : bytes of a round, of which there are some
    """
    block = np.ones(max(size // 8, threads), np.int64)  # zeros would be one page, never read
    parts = np.array_split(block, threads)
    again = max(1, total // block.nbytes)

    def work(index: int) -> None:
        for _ in range(again):
            np.bitwise_or.reduce(parts[index])

    return again * block.nbytes / _best(work, threads, ROUNDS)


def product_rate(threads: int, *, integer: bool, side: int = SIDE) -> float:
    """Operations a second of a product of two square matrices in ONNX Runtime."""
    import onnx

    helper, kinds = onnx.helper, onnx.TensorProto
    name = "MatMulInteger" if integer else "MatMul"
    first, result = (kinds.UINT8, kinds.INT32) if integer else (kinds.FLOAT, kinds.FLOAT)
    rng = np.random.default_rng(0)
    weights: npt.NDArray[Any] = rng.integers(-100, 100, (side, side), dtype=np.int8)
    pixels: npt.NDArray[Any] = rng.integers(0, 100, (side, side), dtype=np.uint8)
    if not integer:
        weights, pixels = weights.astype(np.float32), pixels.astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(name, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", first, [side, side])],
        [helper.make_tensor_value_info("y", result, [side, side])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    run = _session(graph, threads)
    best = _seconds(lambda: run(None, {"x": pixels}), 4 * ROUNDS)
    return 2.0 * side**3 / best


def node_cost(threads: int) -> float:
    """Microseconds of a node of ONNX Runtime on a few numbers."""
    import onnx

    helper = onnx.helper
    kinds = ("Abs", "Relu")
    nodes = [
        helper.make_node(kinds[i % 2], [f"v{i}" if i else "x"], [f"v{i + 1}"]) for i in range(NODES)
    ]
    shape = [4, 8]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"v{NODES}", onnx.TensorProto.FLOAT, shape)],
    )
    run = _session(graph, threads)
    feeds = {"x": np.ones(shape, np.float32)}
    return _seconds(lambda: run(None, feeds), 20 * ROUNDS) / NODES * 1e6


def _session(graph: Any, threads: int) -> Callable[..., Any]:
    """What runs a graph as it is written."""
    import onnx
    import onnxruntime as ort

    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run  # type: ignore[no-any-return]


def _seconds(call: Callable[[], object], rounds: int) -> float:
    """The shortest of ``rounds`` calls after one that warms up."""
    call()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def _best(work: Callable[[int], None], threads: int, rounds: int) -> float:
    """The shortest time in which all threads did their part, all starting together."""
    times: list[list[float]] = [[] for _ in range(threads)]
    barrier = threading.Barrier(threads)

    def turns(index: int) -> None:
        for _ in range(rounds + 1):
            barrier.wait()
            begin = time.perf_counter()
            work(index)
            times[index].append(time.perf_counter() - begin)

    helpers = [threading.Thread(target=turns, args=(i,)) for i in range(1, threads)]
    for helper in helpers:
        helper.start()
    turns(0)
    for helper in helpers:
        helper.join()
    return float(np.array(times)[:, 1:].max(axis=0).min())
