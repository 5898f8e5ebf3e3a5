"""Encoders by own CPU kernels: what ONNX Runtime makes of the same graph, and exact integers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgecap
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.engines.cuda_onnx import Unlike
from edgecap.runtime.engines.encoder_chain import ChainReader
from edgecap.runtime.engines.encoder_cut import cut_encoder
from edgecap.runtime.engines.native_encoder import NativeEncoder, OnnxEncoder, open_encoder
from edgecap.runtime.engines.native_step import NativeStepEngine, kernels
from edgecap.runtime.engines.onnx_weights import load_model
from edgecap.runtime.image import load_image, resize_image

onnx = pytest.importorskip("onnx")
native = pytest.importorskip("edgecap._native")
sys.path.insert(0, str(Path(__file__).parent))
import small_backbones as small  # noqa: E402

PHOTOGRAPHS = Path(__file__).parents[4] / "shared/data/flickr8k/images"


@pytest.fixture(scope="module")
def default() -> Bundle:
    return read_bundle(Path(edgecap.__file__).parent / "models/default.edgecap")


def pictures(count: int, side: int = small.SIDE) -> np.ndarray:
    """Smooth ones, as photographs are."""
    rng = np.random.default_rng(count)
    coarse = rng.integers(0, 256, (count, side // 5 + 1, side // 5 + 1, 3))
    fine = np.kron(coarse, np.ones((1, 5, 5, 1), int))[:, :side, :side]
    return np.clip(fine + rng.integers(-20, 20, fine.shape), 0, 255).astype(np.uint8)


def ours(data: bytes, threads: int = 2, kernel: str = "") -> NativeEncoder:
    return NativeEncoder(native, load_model(data, "e"), "e", small.SIDE, threads, kernel)


def apart(found: np.ndarray, wanted: np.ndarray) -> float:
    """Relative root mean square of the difference."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))


def without_rounding(data: bytes) -> bytes:
    """The graph in floats: pairs of QuantizeLinear and DequantizeLinear are left out."""
    model = onnx.load_from_string(data)
    same: dict[str, str] = {}
    for node in model.graph.node:
        back = node.op_type == "DequantizeLinear" and node.input[0] in same
        if node.op_type == "QuantizeLinear" or back:
            same[node.output[0]] = node.input[0]
    kept = [n for n in model.graph.node if n.output[0] not in same]
    for node in kept:
        for at, name in enumerate(node.input):
            while name in same:
                name = same[name]
            node.input[at] = name
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return bytes(model.SerializeToString())


def test_the_default_encoder_is_the_graphs(default: Bundle) -> None:
    files = sorted(PHOTOGRAPHS.glob("*.jpg"))[:12] if PHOTOGRAPHS.is_dir() else []
    if not files:
        pytest.skip(f"no photographs in {PHOTOGRAPHS.name}")
    images = np.stack([resize_image(load_image(f), default.manifest.image) for f in files])
    file = default.manifest.graphs.encoder.file
    data = default.files[file]
    own = open_encoder(default, native, threads=2)
    assert isinstance(own, NativeEncoder)
    assert own.summary == "own CPU kernels in int8"
    assert 6e6 < own.weight_bytes < 7.5e6  # a byte a weight, and taps and tables in floats
    found = own.run(images)
    theirs = OnnxEncoder(data, file, 2)
    assert own.table == theirs.table
    wanted = theirs.run(images)
    floats = OnnxEncoder(without_rounding(data), file, 2).run(images)
    assert set(found) == set(wanted) == set(floats)
    for name in wanted:
        if name == "novelty":  # a difference of large numbers
            assert np.abs(found[name] - floats[name]).max() < 0.5
            continue
        assert apart(found[name], wanted[name]) < 0.03, name
        # What a scale a row rounds is little beside what the graph's own int8 rounds.
        assert apart(found[name], floats[name]) < 1.15 * apart(wanted[name], floats[name]), name


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_small_encoders_are_what_onnx_runtime_says(seed: int, quantised: bool) -> None:
    data = small.save(small.with_head(seed, quantised))
    own = ours(data)
    assert [name for name, _ in own._inputs] == ["pooled"]  # a Sigmoid stays in ONNX Runtime
    assert own._rest_outputs == ["features", "novelty"]
    found = own.run(pictures(3))
    wanted = OnnxEncoder(data, "e", 1).run(pictures(3))
    assert set(found) == set(wanted)
    for name in wanted:
        assert apart(found[name], wanted[name]) < 0.04, name


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("kernel", kernels())
def test_convolutions_have_the_very_integers(quantised: bool, kernel: str) -> None:
    """Against numpy in float64: only ties may fall to the other side."""
    builder, last = small.backbone(7, quantised)
    data = small.save(builder.model(**{last: 4}))
    reader = ChainReader(load_model(data, "e"), small.SIDE)
    reader.read()
    assert reader.seen is not None
    chain = reader.chain
    assert [at for at, c in enumerate(chain) if c.depthwise] == [3, 6]
    assert {c.bounds for c in chain} == {(-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0)}
    assert [c.residual for c in chain] == [-1, -1, -1, -1, 1, -1, -1, 6, -1]
    spec = {
        "picture": (small.SIDE, small.SIDE, 3),
        **reader.seen.packed(),
        "boxes": None,
        "convolutions": [c.packed() for c in chain],
        "steps": [],
        "results": [{"map": at} for at in range(len(chain))],
    }
    picture = pictures(1)
    wanted = small.reference(chain, picture[0], reader.seen.scale, reader.seen.shift)
    made = [np.empty((1, m.shape[2], *m.shape[:2]), np.float32) for m in wanted]
    native.Encoder(spec, threads=2, kernel=kernel).run(picture, made)
    for at, (found, real) in enumerate(zip(made, wanted, strict=True)):
        off = np.abs(found[0].transpose(1, 2, 0) - real)
        step = max(chain[at].quantised[0], chain[at].rounded[0])
        # A value that was rounded otherwise moves those that are made of it a little.
        assert np.mean(off > 1e-3 + 0.05 * step) < 0.02, at
        assert off.max() < 0.15 + 2 * step, at


def test_threads_kernels_and_batches_change_no_bit() -> None:
    data = small.save(small.with_head(1, True))
    images = pictures(5)
    wanted = ours(data, 1).run(images)
    for threads, kernel in [(2, ""), (5, ""), *((2, name) for name in kernels())]:
        own = ours(data, threads, kernel)
        found = own.run(images)
        alone = [own.run(images[i : i + 1]) for i in range(len(images))]
        name = "memory.key.0"
        assert np.array_equal(found[name], wanted[name])
        assert np.array_equal(np.concatenate([one[name] for one in alone]), wanted[name])


def test_several_threads_may_call() -> None:
    own = ours(small.save(small.with_head(2, True)))
    images = pictures(8)
    wanted = own.run(images)["memory.key.0"]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            parts = pool.map(lambda i: own.run(images[i : i + 1])["memory.key.0"], range(8))
            assert np.array_equal(np.concatenate(list(parts)), wanted)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_convolution_is_near_the_exact_one(data: st.DataObject) -> None:
    torch = pytest.importorskip("torch")
    draw = data.draw
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]  # top, left, bottom, right
    channels, outputs = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    depthwise = draw(st.booleans())
    outputs = channels if depthwise else outputs
    side = draw(st.integers(5, 12))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    # A convolution of the picture first, of one pixel, so that the channels are many.
    mix = rng.normal(size=(channels, 3)).astype(np.float32)
    one = 1 if depthwise else channels
    weight = rng.normal(size=(outputs, one, *kernel)).astype(np.float32)
    bias = rng.normal(size=outputs).astype(np.float32)
    out = tuple((side + pads[i] + pads[i + 2] - kernel[i]) // stride[i] + 1 for i in (0, 1))
    whole = not depthwise and draw(st.booleans())
    common = {"residual": -1, "rounded": (0.0, 0), "bytes": (0.0, 0)}
    first = {
        "source": -1, "bounds": (-np.inf, np.inf), "depthwise": False, "whole": False,
        "kernel": (1, 1), "stride": (1, 1),
        "before": (0, 0), "in": (side, side, 3), "out": (side, side, channels), "weight": mix,
        "bias": np.zeros(channels, np.float32), **common,
    }  # fmt: skip
    turned = weight.reshape(outputs, -1).T if depthwise else weight.transpose(0, 2, 3, 1)
    packed = np.ascontiguousarray(turned.reshape(-1, channels if depthwise else turned[0].size))
    bounds = draw(st.sampled_from([(-np.inf, np.inf), (0.0, np.inf), (0.0, 6.0), (-1.0, 0.5)]))
    second = {
        "source": 0, "bounds": bounds, "depthwise": depthwise, "whole": whole,
        "kernel": kernel, "stride": stride,
        "before": tuple(pads[:2]), "in": (side, side, channels), "out": (*out, outputs),
        "weight": packed, "bias": bias, **common,
    }  # fmt: skip
    spec = {
        "picture": (side, side, 3), "scale": np.full(3, 0.01, np.float32),
        "shift": np.full(3, -1.0, np.float32), "boxes": None, "convolutions": [first, second],
        "steps": [], "results": [{"map": 1}],
    }  # fmt: skip
    picture = rng.integers(0, 256, (1, side, side, 3), np.uint8)
    result = np.empty((1, outputs, *out), np.float32)
    native.Encoder(spec, threads=2, kernel="").run(picture, [result])

    x = torch.from_numpy((picture[0].astype(np.float64) * 0.01 - 1.0) @ mix.T.astype(np.float64))
    x = torch.nn.functional.pad(x.permute(2, 0, 1)[None], (pads[1], pads[3], pads[0], pads[2]))
    w = torch.from_numpy(weight.astype(np.float64))
    groups = channels if depthwise else 1
    exact = torch.nn.functional.conv2d(x, w, torch.from_numpy(bias).double(), stride, groups=groups)
    sizes = torch.nn.functional.conv2d(x.abs(), torch.ones_like(w), None, stride, groups=groups)
    weights = w.abs().sum((1, 2, 3)).view(1, -1, 1, 1)
    # Half a step of each input, half a step of each weight, and both.
    step_x = x.abs().max() / 127
    step_w = (w.abs().amax((1, 2, 3)) / 127).view(1, -1, 1, 1)
    bound = (weights * step_x + sizes * step_w + w[0].numel() * step_x * step_w / 2) / 2
    if not whole:
        bound = bound * 0
    wanted = exact.clamp(*bounds)
    off = np.abs(result - wanted.numpy())
    assert (off <= bound.numpy() + 1e-4 * (1 + exact.abs().max().item())).all()


def chain(**changes: Any) -> bytes:
    """Eight convolutions of one pixel, the last of them changed."""
    b = small.Builder(3, False)
    x = b.node("Cast", [b.node("Transpose", ["image"], perm=[0, 3, 1, 2])], to=1)
    count = changes.pop("count", 8)
    after = changes.pop("after", None)
    for at in range(count):
        last = at == count - 1
        x = b.convolution(x, 3 if at == 0 else 8, 8, 1, **(changes if last else {}))
        if after and at == 3:
            x = b.node(after, [x])
    return small.save(b.model(**{x: 4}))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: chain(count=7), "it has 7 convolutions, a backbone has more"),
        (lambda: chain(dilations=[2, 2]), "no chain"),
        (lambda: chain(auto_pad="SAME_UPPER"), "no chain"),
        (lambda: chain(after="HardSwish"), "no chain"),
    ],
)
def test_other_graphs_are_refused(make: Callable[[], bytes], says: str) -> None:
    with pytest.raises(Unlike, match=says):
        cut_encoder(load_model(make(), "e"), small.SIDE)


def test_what_follows_may_stay_in_onnx_runtime() -> None:
    builder, last = small.backbone(5, True)
    builder.nodes.append(onnx.helper.make_node("Softplus", [last], ["memory.map"]))
    data = small.save(builder.model(**{"memory.map": 4}))
    own = ours(data)
    assert own.summary == "convolutions by own CPU kernels in int8, the rest in ONNX Runtime"
    found, wanted = own.run(pictures(2)), OnnxEncoder(data, "e", 1).run(pictures(2))
    assert apart(found["memory.map"], wanted["memory.map"]) < 0.02


def test_when_own_kernels_are_taken(default: Bundle) -> None:
    assert isinstance(NativeStepEngine(default).encoder, NativeEncoder)
    for options in ({"own_encoder": False}, {"precision": "fp32"}, {"precision": "bf16"}):
        encoder = NativeStepEngine(default, threads=1, **options).encoder  # type: ignore[arg-type]
        assert isinstance(encoder, OnnxEncoder)


@pytest.mark.parametrize(
    ("part", "key", "value", "says"),
    [
        ("convolutions", "source", 3, "read before it is made"),
        ("convolutions", "residual", 1, "read before it is made"),
        ("convolutions", "in", (12, 12, 3), "another size"),
        ("convolutions", "out", (40, 8, 4), "leaves its map"),
        ("convolutions", "kernel", (2, 2), "another size"),
        ("convolutions", "stride", (0, 1), "leaves its map"),
        ("convolutions", "bias", np.zeros(3, np.float32), "another length"),
        ("steps", "kind", "sum", "no step sum"),
        ("steps", "from", [1], "do not fit"),
        ("steps", "from", [], "do not fit"),
        ("steps", "width", 5, "do not fit"),
        ("steps", "index", np.full(400, 400, np.int32), "do not fit"),
        ("results", "map", 1, "no map"),
        ("results", "map", -1, "of nothing"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(
    part: str, key: str, value: Any, says: str
) -> None:
    spec: dict[str, Any] = {
        "picture": (10, 10, 3), "scale": np.ones(3, np.float32),
        "shift": np.zeros(3, np.float32), "boxes": None,
        "convolutions": [
            {
                "source": -1, "bounds": (-np.inf, np.inf), "depthwise": False, "whole": True,
                "kernel": (1, 1),
                "stride": (1, 1), "before": (0, 0), "in": (10, 10, 3), "out": (10, 10, 4),
                "weight": np.ones((4, 3), np.float32), "bias": np.zeros(4, np.float32),
                "residual": -1, "rounded": (0.0, 0), "bytes": (0.0, 0),
            }
        ],
        "steps": [{"kind": "map", "rows": 100, "width": 4, "from": [0], "index": None}],
        "results": [{"map": 0}],
    }  # fmt: skip
    native.Encoder(spec, threads=1, kernel="")
    spec[part][0][key] = value
    with pytest.raises(ValueError, match=says):
        native.Encoder(spec, threads=1, kernel="")


def test_arrays_of_another_size_are_refused() -> None:
    own = ours(small.save(small.with_head(1, False)))
    with pytest.raises(ValueError, match="pixels are not"):
        own.run(pictures(1, 29))
    with pytest.raises(ValueError, match="as many arrays"):
        own._encoder.run(pictures(1), [])
    wrong = [np.empty((1, 3), np.float32) for _ in range(2)]
    with pytest.raises(ValueError, match="another size"):
        own._encoder.run(pictures(1), wrong)
