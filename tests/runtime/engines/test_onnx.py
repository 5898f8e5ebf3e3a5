"""The ONNX Runtime engine against numpy, and graphs that are not what the manifest says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
import tiny_models as tiny
from onnx import numpy_helper

from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.threads import physical_cores
from edgecap.runtime.errors import BundleError, OptionsError
from edgecap.runtime.manifest import Graphs, TensorSpec

T = tiny.POSITIONS


def pictures(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def replay(engine: OnnxEngine, images: np.ndarray, beams: int, steps: int, oracle: Any, seed: int):
    """Random tokens and parents; every row's logits must be those of its whole history."""
    rng = np.random.default_rng(seed)
    batch, rows = len(images), len(images) * beams
    runner = engine.begin(engine.encode(images), beams)
    histories: list[list[int]] = [[] for _ in range(rows)]
    ancestry = np.zeros((rows, beams * T), bool)
    parents = np.arange(rows)
    for position in range(steps):
        tokens = rng.integers(4, tiny.VOCAB, rows)
        histories = [[*histories[p], int(t)] for p, t in zip(parents, tokens, strict=True)]
        logits = runner.step(tokens, position, parents, ancestry)
        expected = [oracle(images[r // beams], histories[r]) for r in range(rows)]
        np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)
        first = np.repeat(np.arange(batch) * beams, beams)
        chosen = first + rng.integers(0, beams, rows)  # parents of the next step, same picture
        now = ancestry.copy()
        now[np.arange(rows), position * beams + np.arange(rows) % beams] = True
        ancestry, parents = now[chosen], chosen


@pytest.mark.parametrize(("batch", "beams"), [(1, 1), (1, 4), (3, 2)])
@pytest.mark.parametrize("recurrent", [False, True])
def test_steps_equal_numpy_over_whole_histories(
    make_bundle: Callable[..., Path], recurrent: bool, batch: int, beams: int
) -> None:
    engine = OnnxEngine(read_bundle(make_bundle(recurrent)), threads=1)
    model = tiny.NumpyModel()
    oracle = model.recurrent_logits if recurrent else model.attention_logits
    # Twice: the second decode goes through the cached runner, with stale caches and carry.
    for seed in (1, 2):
        replay(engine, pictures(batch, seed), beams, T - seed, oracle, seed)


def test_encoder_outputs_go_where_they_belong(tiny_bundle: Path) -> None:
    engine = OnnxEngine(read_bundle(tiny_bundle), threads=1)
    images = pictures(3)
    encoded = engine.encode(images)
    assert encoded.batch == 3
    assert not encoded.carry
    expected = [tiny.NumpyModel().memory(image) for image in images]
    np.testing.assert_allclose(encoded.memory["memory.grid"], expected, rtol=1e-4, atol=1e-4)
    assert encoded.features is not None
    np.testing.assert_allclose(np.linalg.norm(encoded.features, axis=1), 1, rtol=1e-5)
    assert encoded.novelty is not None
    np.testing.assert_allclose(
        encoded.novelty, 1 - images.mean((1, 2, 3)) / 255, rtol=1e-4, atol=1e-5
    )


def test_runners_are_kept_and_their_number_is_bounded(tiny_bundle: Path) -> None:
    engine = OnnxEngine(read_bundle(tiny_bundle), threads=1)
    encoded = engine.encode(pictures(1))
    first = engine.begin(encoded, 2)
    assert engine.begin(encoded, 2) is first
    for beams in range(3, 12):
        engine.begin(encoded, beams)
    assert len(engine._runners) <= 4
    assert engine.begin(encoded, 2) is not first


def with_changes(bundle: Bundle, files: dict[str, bytes] | None = None, **manifest: Any) -> Bundle:
    return dataclasses.replace(
        bundle,
        manifest=msgspec.structs.replace(bundle.manifest, **manifest),
        files={**bundle.files, **(files or {})},
    )


def table(bundle: Bundle, role: str, kind: str, spec: TensorSpec) -> Bundle:
    """The bundle with one tensor of its I/O table replaced or added."""
    graphs = bundle.manifest.graphs
    graph = getattr(graphs, role)
    specs = [s for s in getattr(graph, kind) if s.name != spec.name]
    graph = msgspec.structs.replace(graph, **{kind: (*specs, spec)})
    return with_changes(bundle, graphs=msgspec.structs.replace(graphs, **{role: graph}))


def test_swapped_graphs(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    files = bundle.files
    swapped = {"encoder.onnx": files["decoder.onnx"], "decoder.onnx": files["encoder.onnx"]}
    with pytest.raises(BundleError, match=r"encoder\.onnx and decoder\.onnx are swapped"):
        OnnxEngine(with_changes(bundle, swapped))


def test_swapped_graphs_with_their_tables(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    graphs = bundle.manifest.graphs
    with pytest.raises(BundleError, match=r"decoder\.onnx breaks the graph contract.*image, uint8"):
        OnnxEngine(with_changes(bundle, graphs=Graphs(graphs.decoder, graphs.encoder)))


@pytest.mark.parametrize(
    ("role", "kind", "spec", "message"),
    [
        ("encoder", "inputs", TensorSpec("image", "uint8", ("B", 64, 64, 3)), "'image' is uint8"),
        ("encoder", "outputs", TensorSpec("memory.x", "float32", ("B", 1)), "no output 'memory.x'"),
        ("decoder", "inputs", TensorSpec("token", "int32", ("R",)), "says int32"),
        (
            "decoder",
            "outputs",
            TensorSpec("logits", "float32", ("R", 9)),
            r"says float32 \['R', 9\]",
        ),
        ("decoder", "outputs", TensorSpec("logits", "float32", ("R",)), "manifest says"),
    ],
)
def test_table_that_is_not_the_graphs(
    tiny_bundle: Path, role: str, kind: str, spec: TensorSpec, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        OnnxEngine(table(read_bundle(tiny_bundle), role, kind, spec))


def test_graphs_that_break_the_contract(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    tokenizer = msgspec.structs.replace(bundle.manifest.tokenizer, vocab_size=99)
    with pytest.raises(BundleError, match=r"it must give logits, float32 \[R, 99\]"):
        OnnxEngine(with_changes(bundle, tokenizer=tokenizer))
    image = msgspec.structs.replace(bundle.manifest.image, size=64)
    with pytest.raises(BundleError, match=r"uint8 \[B, 64, 64, 3\]"):
        OnnxEngine(with_changes(bundle, image=image))


def test_decoder_of_another_family(tiny_bundle: Path, make_bundle: Callable[..., Path]) -> None:
    bundle, other = read_bundle(tiny_bundle), read_bundle(make_bundle(recurrent=True))
    graphs = Graphs(bundle.manifest.graphs.encoder, other.manifest.graphs.decoder)
    mixed = with_changes(bundle, {"decoder.onnx": other.files["decoder.onnx"]}, graphs=graphs)
    with pytest.raises(BundleError, match=r"carry\.state is not what encoder\.onnx gives"):
        OnnxEngine(mixed)


def test_a_file_that_is_no_graph(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    with pytest.raises(BundleError, match=r"decoder\.onnx does not load in ONNX Runtime") as caught:
        OnnxEngine(with_changes(bundle, {"decoder.onnx": b"not a graph"}))
    assert "\n" not in str(caught.value)


def test_weights_outside_the_bundle_are_refused(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    model = onnx.load_from_string(bundle.files["encoder.onnx"])
    see = next(t for t in model.graph.initializer if t.name == "see")
    see.CopyFrom(numpy_helper.from_array(np.zeros((3, tiny.WIDTH), np.float32), "see"))
    onnx.external_data_helper.set_external_data(see, "/etc/passwd")
    see.ClearField("raw_data")
    with pytest.raises(BundleError, match="keeps weights in another file"):
        OnnxEngine(with_changes(bundle, {"encoder.onnx": model.SerializeToString()}))


def test_options(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    for threads in (0, -1, 1.5, True, 1000):
        with pytest.raises(OptionsError, match="threads is"):
            OnnxEngine(bundle, threads=threads)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match=r"no execution provider 'Abacus' here; .*CPUExecution"):
        OnnxEngine(bundle, providers=["Abacus"])
    assert 1 <= OnnxEngine(bundle).threads <= min(4, physical_cores())
