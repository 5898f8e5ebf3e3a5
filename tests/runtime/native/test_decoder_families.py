"""Captions of the decoder kernels equal ONNX Runtime's steps under the CPU's beam search."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_decoders
import tensorrt_emulation as emulation
from small_decoders import POSITIONS, SPECIAL

from edgecap.runtime.bundle import Bundle
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.engines.cuda import CudaEngine, part
from edgecap.runtime.engines.cuda_decoder import CudaDecoder
from edgecap.runtime.engines.device_array import DeviceArray, DevicePool
from edgecap.runtime.engines.onnx import OnnxEngine
from edgecap.runtime.engines.tensorrt import TensorRTEngine
from edgecap.runtime.errors import EngineError

Made = tuple[Bundle, OnnxEngine]
VARIANTS: list[dict[str, Any]] = [
    {},
    {"repetition_penalty": 1.4, "suppress_tokens": (0, 7)},
    {"no_repeat_ngram_size": 2, "min_new_tokens": 3, "length_penalty": -0.5},
    {"max_new_tokens": 5, "early_stopping": True, "length_penalty": 0.3},
    {"early_stopping": "never", "length_penalty": 1.5, "min_new_tokens": 2},
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    pytest.importorskip("transformers")
    known: dict[str, Made] = {}
    folder: Path = tmp_path_factory.mktemp("decoders")

    def get(family: str) -> Made:
        if family not in known:
            bundle = small_decoders.make(folder, family)
            known[family] = (bundle, OnnxEngine(bundle, threads=1))
        return known[family]

    return get


def options_of(beams: int, variant: dict[str, Any]) -> DecodingOptions:
    given = {"max_new_tokens": POSITIONS, **variant}
    return DecodingOptions(beams=beams, num_return_sequences=beams, **given)


def assert_equal(wanted: Decoded, found: Decoded, tolerance: float = 2e-4) -> None:
    assert found.steps == wanted.steps
    for right, ours in zip(wanted.hypotheses, found.hypotheses, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in right]
        for a, b in zip(right, ours, strict=True):
            assert b.score == pytest.approx(a.score, abs=tolerance)
            assert b.logprobs == pytest.approx(a.logprobs, abs=tolerance)


def assert_nearly_equal(wanted: Decoded, found: Decoded, tolerance: float) -> None:
    gaps = [
        abs(a[0].score - b[0].score)
        for a, b in zip(wanted.hypotheses, found.hypotheses, strict=True)
        if a[0].tokens == b[0].tokens
    ]
    # These weights are far larger than trained ones: a few captions fork.
    assert len(gaps) >= 9
    assert 0 < max(gaps) < tolerance


@pytest.mark.parametrize("family", small_decoders.FAMILIES)
def test_fp32_captions_are_the_step_engine_s(
    kernels: Any, made: Callable[[str], Made], family: str
) -> None:
    library, cuda = kernels
    bundle, engine = made(family)
    decoder = CudaDecoder(bundle, cuda, "fp32", library)
    said = set()
    everything = ((3, 1), (1, 4), (3, 4))
    for batch, beams in ((1, 1), *everything, (2, 7), (4, 16)):
        encoded = engine.encode(small_decoders.pictures(bundle, batch))
        for variant in VARIANTS if (batch, beams) in everything else VARIANTS[:1]:
            options = options_of(beams, variant)
            wanted = generate(engine, encoded, options, SPECIAL)
            assert_equal(wanted, decoder.decode(encoded, options, SPECIAL))
            said |= {found[0].tokens for found in wanted.hypotheses}
    assert len(said) > 5  # pictures and options make a difference


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", ["image-transformer", "show-attend-tell", "blip", "git"])
def test_less_precise_weights_say_nearly_the_same(
    kernels: Any, made: Callable[[str], Made], family: str, precision: str
) -> None:
    library, cuda = kernels
    bundle, engine = made(family)
    decoder = CudaDecoder(bundle, cuda, precision, library)
    encoded = engine.encode(small_decoders.pictures(bundle, 12))
    options = options_of(4, {})
    wanted = generate(engine, encoded, options, SPECIAL)
    found = decoder.decode(encoded, options, SPECIAL)
    assert_nearly_equal(wanted, found, 0.01 if precision == "fp16" else 0.2)


@pytest.mark.usefixtures("made")  # it skips where packages are missing
def test_integer_products_run_with_widened_weights(kernels: Any, tmp_path: Path) -> None:
    library, cuda = kernels
    bundle = small_decoders.make_dynamic(tmp_path, "image-transformer")
    engine = OnnxEngine(bundle, threads=1)
    encoded = engine.encode(small_decoders.pictures(bundle, 12))
    options = options_of(4, {})
    wanted = generate(engine, encoded, options, SPECIAL)
    found = CudaDecoder(bundle, cuda, "fp32", library).decode(encoded, options, SPECIAL)
    assert_nearly_equal(wanted, found, 0.2)


@pytest.mark.parametrize("processors", ["1", "46", "132"])
@pytest.mark.parametrize("family", ["vit-gpt2", "show-attend-tell"])
def test_the_split_of_the_work_changes_nothing(
    kernels: Any,
    made: Callable[[str], Made],
    family: str,
    processors: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library, cuda = kernels
    if cuda.device.name != "CPU":
        pytest.skip("a real device has the multiprocessors that it has")
    monkeypatch.setenv("EDGECAP_EMULATED_SMS", processors)
    bundle, engine = made(family)
    decoder = CudaDecoder(bundle, cuda, "fp32", library)
    encoded = engine.encode(small_decoders.pictures(bundle, 3))
    for beams in (1, 3):
        options = options_of(beams, {"repetition_penalty": 1.3})
        wanted = generate(engine, encoded, options, SPECIAL)
        assert_equal(wanted, decoder.decode(encoded, options, SPECIAL))


def test_rows_that_share_a_tile_do_not_touch_each_other(
    kernels: Any, made: Callable[[str], Made]
) -> None:
    """A picture says the same alone as among fifteen others."""
    library, cuda = kernels
    bundle, engine = made("image-transformer")
    decoder = CudaDecoder(bundle, cuda, "fp32", library)
    images = small_decoders.pictures(bundle, 16)
    options = options_of(4, {})
    together = decoder.decode(engine.encode(images), options, SPECIAL).hypotheses
    for i in (0, 7, 15):
        alone = decoder.decode(engine.encode(images[i : i + 1]), options, SPECIAL).hypotheses[0]
        assert [h.tokens for h in alone] == [h.tokens for h in together[i]]
        assert [h.score for h in alone] == pytest.approx([h.score for h in together[i]], abs=1e-4)


def test_the_same_search_again_is_the_same(kernels: Any, made: Callable[[str], Made]) -> None:
    library, cuda = kernels
    bundle, engine = made("show-and-tell")
    decoder = CudaDecoder(bundle, cuda, "fp16", library)
    encoded = engine.encode(small_decoders.pictures(bundle, 2))
    first = {}
    for _ in range(2):  # twelve kinds of search: more than are kept
        for beams in range(1, 13):
            found = decoder.decode(encoded, options_of(beams, {}), SPECIAL).hypotheses
            assert first.setdefault(beams, found) == found


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("family", ["vit-gpt2", "show-attend-tell"])
def test_memory_may_lie_on_the_device(
    kernels: Any, made: Callable[[str], Made], family: str, kind: str
) -> None:
    """In single or half precision, as TensorRT's engines give it; also a part of the pictures."""
    library, cuda = kernels
    bundle, engine = made(family)
    decoder = CudaDecoder(bundle, cuda, "fp32", library)
    encoded = engine.encode(small_decoders.pictures(bundle, 3))
    pool = DevicePool(cuda)

    def rounded(arrays: dict[str, Any]) -> dict[str, Any]:
        return {name: array.astype(kind).astype(np.float32) for name, array in arrays.items()}

    def moved(arrays: dict[str, Any]) -> dict[str, Any]:
        there = {}
        for name, array in arrays.items():
            values = np.ascontiguousarray(array, kind)
            there[name] = DeviceArray(pool.take(values.nbytes), values.shape, values.dtype)
            cuda.upload(there[name].address, values)
        cuda.synchronize()
        return there

    options = options_of(3, {})
    host = dataclasses.replace(
        encoded, memory=rounded(encoded.memory), carry=rounded(encoded.carry)
    )
    device = dataclasses.replace(encoded, memory=moved(encoded.memory), carry=moved(encoded.carry))
    for start, count in ((0, 3), (1, 2)):
        wanted = decoder.decode(part(host, start, count), options, SPECIAL)
        found = decoder.decode(part(device, start, count), options, SPECIAL)
        assert found.hypotheses == wanted.hypotheses


def test_what_lies_on_the_device_must_be_plain_floats(
    kernels: Any, made: Callable[[str], Made]
) -> None:
    library, cuda = kernels
    bundle, engine = made("vit-gpt2")
    decoder = CudaDecoder(bundle, cuda, "fp32", library)
    encoded = engine.encode(small_decoders.pictures(bundle, 1))
    pool = DevicePool(cuda)
    doubles = {
        name: DeviceArray(pool.take(8 * array.size), array.shape, np.float64)
        for name, array in encoded.memory.items()
    }
    with pytest.raises(EngineError, match=r"<f8 with strides None; give float32 or float16"):
        decoder.decode(dataclasses.replace(encoded, memory=doubles), options_of(2, {}), SPECIAL)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_s_memory_stays_on_the_device(
    kernels: Any, made: Callable[[str], Made], tmp_path: Path, precision: str
) -> None:
    """TensorRT (emulated) encodes, the kernels decode: no memory comes to the host between them."""
    from edgecap.export.tensorrt.prepare import prepare

    library, cuda = kernels
    if library.architectures != ("emulated",):
        pytest.skip("TensorRT is emulated, a real GPU is not its device")
    bundle, engine = made("image-transformer")
    graphs = {role: p.SerializeToString() for role, p in prepare(bundle, precision).items()}
    emulation.write_plans(tmp_path, bundle, graphs, precision=precision)
    host = emulation.HostCuda()
    encoder = TensorRTEngine(bundle, tmp_path, library=emulation.library(host), cuda=host)
    ours = CudaEngine(encoder, CudaDecoder(bundle, cuda, precision, library), max_rows=8)
    options = options_of(4, {})
    images = small_decoders.pictures(bundle, 3)
    wanted = generate(engine, engine.encode(images), options, SPECIAL)
    found = generate(ours, ours.encode(images), options, SPECIAL)
    right = [
        a[0].tokens == b[0].tokens for a, b in zip(wanted.hypotheses, found.hypotheses, strict=True)
    ]
    assert sum(right) >= (3 if precision == "fp32" else 2)
    host.calls.clear()
    encoded = ours.encode(images)
    ours.decode(encoded, options, SPECIAL)
    outputs = [spec.name for spec in bundle.manifest.graphs.encoder.outputs]
    assert host.calls["download"] == sum(not name.startswith("memory.") for name in outputs)
    assert host.calls["upload"] == 1
    kinds = {array.dtype for array in encoded.memory.values()}
    assert kinds == {np.dtype("float32" if precision == "fp32" else "float16")}


@pytest.mark.parametrize("at_once", [True, False], ids=["before it begins", "meanwhile"])
def test_a_deadline_ends_the_search(
    kernels: Any, made: Callable[[str], Made], at_once: bool
) -> None:
    library, cuda = kernels
    bundle, engine = made(next(iter(small_decoders.FAMILIES)))
    decoder = CudaDecoder(bundle, cuda, "fp32", library)
    encoded = engine.encode(small_decoders.pictures(bundle, 4))
    options = options_of(8, {"min_new_tokens": POSITIONS})
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return at_once or asked > 3

    found = decoder.decode(encoded, options, SPECIAL, should_stop=should_stop)
    assert found.truncated or not at_once
    assert found.steps == 1 if at_once else 1 <= found.steps <= POSITIONS
    assert found.truncated == (found.steps < POSITIONS)
    steps = 0

    def enough() -> bool:
        nonlocal steps
        steps += 1
        return steps == found.steps

    # The same as the CPU's search stopped after as many steps.
    assert_equal(generate(engine, encoded, options, SPECIAL, should_stop=enough), found)
    # And the next search is whole.
    assert not decoder.decode(encoded, options, SPECIAL).truncated
