"""The TensorRT engine against ONNX Runtime's, on an emulated GPU; no TensorRT and no driver."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorrt_emulation as emulation
import tiny_models as tiny

from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.cuda_memory import Device
from edgecap.runtime.engines.device_array import MOST_FREE
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.tensorrt import TensorRTEngine
from edgecap.runtime.errors import EngineError, OptionsError

SPECIAL = SpecialTokens(bos=tiny.BOS, eos=tiny.EOS, pad=tiny.PAD)


SHARED = Device(emulation.DEVICE.name, emulation.DEVICE.compute_capability, integrated=True)


def open_engine(
    bundle: Bundle, folder: Path, cuda: emulation.HostCuda | None = None, **options: Any
) -> TensorRTEngine:
    cuda = cuda or emulation.HostCuda()
    return TensorRTEngine(bundle, folder, library=emulation.library(cuda), cuda=cuda, **options)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    shape = (count, tiny.SIZE, tiny.SIZE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("device", [emulation.DEVICE, SHARED], ids=["discrete", "integrated"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_captions_equal_those_of_onnx_runtime(
    make_bundle: Callable[..., Path], tmp_path: Path, recurrent: bool, device: Device
) -> None:
    bundle = read_bundle(make_bundle(recurrent))
    emulation.write_plans(tmp_path, bundle)
    ours = open_engine(bundle, tmp_path, emulation.HostCuda(device))
    theirs = OnnxEngine(bundle, threads=1)
    said = set()
    # Sizes come back: a runner that is used again holds stale caches and state.
    for seed, (batch, beams) in enumerate([(1, 1), (3, 2), (1, 4), (3, 2), (8, 4), (1, 1)]):
        options = DecodingOptions(
            beams=beams,
            max_new_tokens=tiny.POSITIONS - seed,
            min_new_tokens=3,
            no_repeat_ngram_size=1,
            num_return_sequences=beams,
        )
        images = pictures(batch, seed)
        found = generate(ours, ours.encode(images), options, SPECIAL).hypotheses
        expected = generate(theirs, theirs.encode(images), options, SPECIAL).hypotheses
        for a, b in zip(found, expected, strict=True):
            assert [h.tokens for h in a] == [h.tokens for h in b]
            assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-4)
            said.add(tuple(a[0].tokens))
    assert len(said) > 3, "captions do not depend on the pictures, so their equality says little"


def test_encoder_outputs_go_where_they_belong(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    found = open_engine(bundle, tmp_path).encode(pictures(3))
    expected = OnnxEngine(bundle, threads=1).encode(pictures(3))
    assert found.batch == 3
    assert not found.carry
    assert set(found.memory) == {"memory.grid"}
    np.testing.assert_allclose(
        found.memory["memory.grid"], expected.memory["memory.grid"], rtol=1e-5, atol=1e-5
    )
    for a, b in ((found.features, expected.features), (found.novelty, expected.novelty)):
        assert a is not None
        assert b is not None
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("recurrent", [False, True])
def test_half_precision_tensors_between_the_graphs(
    make_bundle: Callable[..., Path], tmp_path: Path, recurrent: bool
) -> None:
    """memory, carry, cache and append as float16, as the engines of fp16 and int8 have them."""
    from edgecap.export.tensorrt.prepare import prepare

    bundle = read_bundle(make_bundle(recurrent))
    graphs = {role: p.SerializeToString() for role, p in prepare(bundle, "fp16").items()}
    emulation.write_plans(tmp_path, bundle, graphs, precision="fp16")
    ours, theirs = open_engine(bundle, tmp_path), OnnxEngine(bundle, threads=1)
    images = pictures(2)
    found, expected = ours.encode(images), theirs.encode(images)
    assert {a.dtype for a in (*found.memory.values(), *found.carry.values())} == {
        np.dtype("float16")
    }
    runners = (ours.begin(found, 3), theirs.begin(expected, 3))
    ancestry = np.zeros((6, 3 * tiny.POSITIONS), bool)
    rng = np.random.default_rng(2)
    parents = np.arange(6)
    for position in range(5):
        tokens = rng.integers(4, tiny.VOCAB, 6)
        logits = [r.step(tokens, position, parents, ancestry) for r in runners]
        assert logits[0].dtype == np.float32
        np.testing.assert_allclose(logits[0], logits[1], atol=0.1)
        now = ancestry.copy()
        now[np.arange(6), position * 3 + np.arange(6) % 3] = True
        parents = np.repeat([0, 3], 3) + rng.integers(0, 3, 6)
        ancestry = now[parents]


def test_memory_is_freed_when_sizes_pass_by(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    cuda = emulation.HostCuda()
    engine = open_engine(bundle, tmp_path, cuda)
    held = []
    for batch in 2 * (1, 2, 3, 4, 5, 6, 7, 8):
        engine.begin(engine.encode(pictures(batch)), 1 + batch % 4)
        held.append((len(cuda.blocks), len(cuda.pins)))
    assert held[8:] == [held[8]] * 8
    assert held[8][0] <= held[3][0] + MOST_FREE
    first = engine.begin(engine.encode(pictures(8)), 1)
    assert engine.begin(engine.encode(pictures(8)), 1) is first
    del engine, first
    gc.collect()
    assert (cuda.blocks, cuda.pins) == ({}, {})


def decode(engine: TensorRTEngine, seed: int) -> None:
    options = DecodingOptions(beams=2, max_new_tokens=5, min_new_tokens=5)
    generate(engine, engine.encode(pictures(2, seed)), options, SPECIAL)


@pytest.mark.parametrize("device", [emulation.DEVICE, SHARED], ids=["discrete", "integrated"])
def test_frames_after_the_first_allocate_nothing(
    tiny_bundle: Path, tmp_path: Path, device: Device
) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    cuda = emulation.HostCuda(device)
    engine = open_engine(bundle, tmp_path, cuda)
    decode(engine, 0)
    cuda.calls.clear()
    for seed in range(1, 4):
        decode(engine, seed)
    assert not cuda.calls["allocate"]
    assert not cuda.calls["pinned"]
    # A caption of five steps: one wait to encode, one to begin, one a step.
    assert cuda.calls["synchronize"] == 3 * (1 + 1 + 5)
    # What both sides touch once stays where it is on a GPU that shares the CPU's memory.
    memory = sum(spec.name.startswith("memory.") for spec in bundle.manifest.graphs.decoder.inputs)
    # What the encoder gives as memory never comes to the host.
    small = {"token", "position", "parent", "ancestry"}
    small &= {spec.name for spec in bundle.manifest.graphs.decoder.inputs}
    outputs = len(bundle.manifest.graphs.encoder.outputs)
    shared = device.integrated
    assert cuda.calls["upload"] == 3 * (0 if shared else 1 + 5 * len(small))
    assert cuda.calls["download"] == 3 * (0 if shared else outputs - memory + 5)


def test_encoding_from_several_threads(tiny_bundle: Path, tmp_path: Path) -> None:
    """Each thread has its own execution context and stream, up to four."""
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    engine = open_engine(bundle, tmp_path)
    alone = [engine.encode(pictures(1, seed)).features for seed in range(8)]
    together: list[Any] = [None] * 8
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait()
        for _ in range(5):
            together[seed] = engine.encode(pictures(1, seed)).features

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for a, b in zip(alone, together, strict=True):
        assert a is not None
        np.testing.assert_array_equal(a, b)
    lanes = engine._lanes
    assert 1 < len(lanes) <= 4
    for lane in lanes:
        assert {stream for stream, _ in lane._context._context.users} == {lane.cuda.stream}
    assert len({lane.cuda.stream for lane in lanes}) == len(lanes)
    for seed in range(8, 16):  # threads that have ended leave their contexts to the next
        thread = threading.Thread(target=engine.encode, args=(pictures(1, seed),))
        thread.start()
        thread.join()
    assert len(engine._lanes) <= 4


def test_a_thread_without_memory_for_its_own_context_takes_turns(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    engine = open_engine(bundle, tmp_path)
    engine.encode(pictures(1))
    engine._encoder._engine.create_execution_context = lambda: None
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(engine.encode(pictures(1))))
    thread.start()
    thread.join()
    assert found[0].batch == 1
    assert len(engine._lanes) == 1


def test_a_context_that_does_not_fit_says_how_much_was_needed(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    cuda = emulation.HostCuda()
    library = emulation.library(cuda)

    plain = library.module.Runtime.deserialize_cuda_engine

    def load(runtime: Any, data: bytes) -> Any:
        def refuse() -> None:
            runtime.logger.log(1, "Error Code 2: OutOfMemory (Requested size was 900000000)")

        engine = plain(runtime, data)
        engine.device_memory_size_v2, engine.create_execution_context = 900_000_000, refuse
        return engine

    library.module.Runtime.deserialize_cuda_engine = load
    with pytest.raises(
        EngineError,
        match=r"does not start: .*about 900 MB were needed, 3 MB of 8 MB are free; .*--batch",
    ):
        TensorRTEngine(bundle, tmp_path, library=library, cuda=cuda)


def test_the_decoders_plan_may_wait(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    engine = open_engine(bundle, tmp_path, steps_later=True)
    encoded = engine.encode(pictures(1))
    assert engine._decoding is None
    engine.begin(encoded, 2)
    assert engine._decoding is not None


def test_more_than_the_profile_holds(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    engine = open_engine(bundle, tmp_path)
    with pytest.raises(OptionsError, match=r"9 pictures at once.*1 to 8: build.* --batch 1\.\.9"):
        engine.encode(pictures(9))
    with pytest.raises(OptionsError, match=r"5 beams at once.*1 to 4: build.* --beams 1\.\.5"):
        engine.begin(engine.encode(pictures(1)), 5)


def test_a_plan_that_does_not_load_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    cuda = emulation.HostCuda()
    library = emulation.library(cuda)

    def refuse(runtime: Any, data: bytes) -> None:
        runtime.logger.log(1, "[runtime.cpp::f::8] Error Code 6: the plan is of another version")

    library.module.Runtime.deserialize_cuda_engine = refuse
    with pytest.raises(EngineError, match=r"TensorRT 10\.3\.0 does not load .*another version$"):
        TensorRTEngine(bundle, tmp_path, library=library, cuda=cuda)


def test_a_run_that_fails_says_why(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    emulation.write_plans(tmp_path, bundle)
    engine = open_engine(bundle, tmp_path)
    context = engine._lanes[0]._context._context
    context.set_input_shape = lambda name, shape: False
    with pytest.raises(EngineError, match="failed to run"):
        engine.encode(pictures(1))
    del context.set_input_shape
    engine.encode(pictures(1))


def test_a_plan_of_other_tensors_than_its_sidecar_tells(tiny_bundle: Path, tmp_path: Path) -> None:
    from edgecap.export.tensorrt.half import to_half

    bundle = read_bundle(tiny_bundle)
    half = to_half(onnx.load_from_string(bundle.files["encoder.onnx"])).SerializeToString()
    sidecars = emulation.write_plans(tmp_path, bundle)
    emulation.write_plans(
        tmp_path, bundle, {"encoder": half}, inputs=sidecars[0].inputs, outputs=sidecars[0].outputs
    )
    with pytest.raises(EngineError, match=r"not the engine of its sidecar: memory\.grid differs"):
        open_engine(bundle, tmp_path)
