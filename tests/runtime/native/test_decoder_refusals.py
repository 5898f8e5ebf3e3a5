"""What the CUDA decoder does not take is said in one line, and never decoded wrongly."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.engines.cuda_abi import Packed, pack
from edgecap.runtime.engines.cuda_decoder import CudaDecoder, read_decoder
from edgecap.runtime.engines.cuda_program import write_program
from edgecap.runtime.errors import EngineError

MODEL = Path(__file__).resolve().parents[3] / "edgecap" / "models" / "default.edgecap"
SPECIAL = SpecialTokens(bos=1, eos=2, pad=0)
Change = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(MODEL)


def encoded(batch: int, **changes: Any) -> Encoded:
    rng = np.random.default_rng(batch)
    shapes = {"key": (6, 64, 50), "value": (6, 50, 64)}
    memory = {
        f"memory.{part}.{i}": rng.normal(size=(batch, *shape)).astype(np.float32)
        for part, shape in shapes.items()
        for i in range(2)
    }
    return Encoded(batch, {**memory, **changes}, {}, None, None)


def node(model: onnx.ModelProto, kind: str, at: int = 0) -> onnx.NodeProto:
    return [n for n in model.graph.node if n.op_type == kind][at]


def another_activation(model: onnx.ModelProto) -> None:
    node(model, "Relu").op_type = "Elu"


def a_scaled_residual(model: onnx.ModelProto) -> None:
    relu = node(model, "Relu", 1)
    model.graph.node.insert(
        list(model.graph.node).index(relu),
        onnx.helper.make_node("Mul", [relu.input[0], "half"], ["scaled"]),
    )
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    relu.input[0] = "scaled"


def no_past(model: onnx.ModelProto) -> None:
    """The second layer attends over the first one's cache."""
    for n in model.graph.node:
        for i, name in enumerate(n.input):
            if name == "cache.value.1":
                n.input[i] = "cache.value.0"


def a_norm_left_out(model: onnx.ModelProto) -> None:
    norm = node(model, "LayerNormalization", 2)
    for n in model.graph.node:
        for i, name in enumerate(n.input):
            if name == norm.output[0]:
                n.input[i] = norm.input[0]


def other_words(model: onnx.ModelProto) -> None:
    """Words are looked up by place, places by word."""
    words, places = (n for n in model.graph.node if n.op_type == "Gather" and n.input[0] in TABLES)
    words.input[1], places.input[1] = places.input[1], words.input[1]


TABLES = ("model.position", "model.embed.weight")
CHANGES: list[Change] = [
    another_activation,
    a_scaled_residual,
    no_past,
    a_norm_left_out,
    other_words,
]


@pytest.mark.parametrize("change", CHANGES)
def test_another_network_is_refused(bundle: Bundle, change: Change) -> None:
    model = onnx.load_from_string(bundle.files["decoder.onnx"])
    change(model)
    files = {**bundle.files, "decoder.onnx": model.SerializeToString()}
    with pytest.raises(EngineError, match=r"do not decode .*: .* They take Transformer"):
        read_decoder(dataclasses.replace(bundle, files=files))


def test_the_unchanged_network_is_taken(bundle: Bundle) -> None:
    assert read_decoder(bundle).vocab == 3577


def test_a_family_without_kernels(tiny_bundle: Path) -> None:
    with pytest.raises(EngineError, match="do not decode tiny"):
        read_decoder(read_bundle(tiny_bundle))


def test_integer_kernels_have_no_weights_to_take(bundle: Bundle) -> None:
    model = onnx.load_from_string(bundle.files["decoder.onnx"])
    node(model, "MatMul").op_type = "MatMulInteger"
    files = {**bundle.files, "decoder.onnx": model.SerializeToString()}
    with pytest.raises(EngineError, match="products are MatMulInteger"):
        read_decoder(dataclasses.replace(bundle, files=files))


def test_options_out_of_range(kernels: Any, bundle: Bundle) -> None:
    library, cuda = kernels
    decoder = CudaDecoder(bundle, cuda, "fp16", library)
    options = DecodingOptions(beams=16, max_new_tokens=2)
    with pytest.raises(EngineError, match="5 pictures of 16 beams; the kernels take 64 rows"):
        decoder.decode(encoded(5), options, SPECIAL)
    wrong = encoded(2, **{"memory.key.1": np.zeros((2, 3), np.float32)})
    with pytest.raises(EngineError, match=r"memory.key.1 is \[2, 3\]; the decoder takes \[2, 6"):
        decoder.decode(wrong, options, SPECIAL)
    with pytest.raises(EngineError, match="eos, bos or pad is no token"):
        decoder.decode(encoded(1), options, SpecialTokens(bos=1, eos=9999, pad=0))
    # Nothing of that stays behind.
    assert len(decoder.decode(encoded(1), options, SPECIAL).hypotheses[0][0].tokens) > 0


def test_precisions_are_named(kernels: Any, bundle: Bundle) -> None:
    library, cuda = kernels
    with pytest.raises(EngineError, match="precision is 'fp8'; give one of fp32, fp16, int8"):
        CudaDecoder(bundle, cuda, "fp8", library)


def test_a_description_of_another_version(kernels: Any, bundle: Bundle) -> None:
    import ctypes

    library, cuda = kernels
    packed = Packed(write_program(read_decoder(bundle)), 18, "fp16")
    packed.spec.abi = 99
    CudaDecoder(bundle, cuda, "fp16", library)  # declares the functions
    handle, text = ctypes.c_void_p(), ctypes.create_string_buffer(200)
    code = library.functions.edgecap_decoder_create(
        ctypes.byref(packed.spec), ctypes.byref(handle), text, len(text)
    )
    assert (code, handle.value) == (1, None)
    assert b"another version" in text.value


def test_weights_that_half_precision_does_not_hold() -> None:
    with pytest.raises(EngineError, match="too large for fp16"):
        pack(np.full((1, 2), 1e5, np.float32), np.float16)


def test_int8_weights_are_rounded_to_half_a_step() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 37)).astype(np.float32)
    weight[2] = 0
    packed, scale = pack(weight, np.int8)
    assert scale is not None
    assert packed.shape == (5, 128)
    assert not packed[:, 37:].any()
    error = np.abs(packed[:, :37] * scale[:, None] - weight)
    assert (error <= np.abs(weight).max(1, keepdims=True) / 127 * 0.5001).all()


def test_threads_take_turns_and_decoders_live_side_by_side(kernels: Any, bundle: Bundle) -> None:
    library, cuda = kernels
    decoders = [CudaDecoder(bundle, cuda, "fp32", library) for _ in range(2)]
    options = DecodingOptions(beams=2, max_new_tokens=4)
    inputs = [encoded(batch) for batch in (1, 2)]
    wanted = [decoders[0].decode(one, options, SPECIAL).hypotheses for one in inputs]
    wrong = []

    def work(number: int) -> None:
        for turn in range(3):
            which = (number + turn) % 2
            found = decoders[number // 2].decode(inputs[which], options, SPECIAL).hypotheses
            if found != wanted[which]:
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_closed_decoder_frees_what_it_held(kernels: Any, bundle: Bundle) -> None:
    library, cuda = kernels
    decoder = CudaDecoder(bundle, cuda, "fp16", library)
    assert decoder.describe().weight_bytes > 10_000_000
    decoder.close()
    decoder.close()  # again does nothing
