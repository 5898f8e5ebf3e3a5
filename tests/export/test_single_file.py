"""The one ONNX file says what ``Captioner`` says, token for token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

import single_file_models  # noqa: E402
import tiny_models  # noqa: E402
from single_file_models import SingleFile, check_equal, pictures  # noqa: E402

from edgecap.export.single_file import SingleFileOptions, write_single_file  # noqa: E402
from edgecap.export.single_file.write import build_model  # noqa: E402
from edgecap.runtime.bundle import Bundle, read_bundle  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.runtime.errors import BundleError, OptionsError  # noqa: E402


def build(bundle: Bundle, **asked: Any) -> tuple[Captioner, SingleFile]:
    caches = asked.pop("caches", "grow")
    captioner = Captioner(bundle, threads=1)
    model = build_model(bundle, captioner.options(**asked), caches)
    return captioner, SingleFile(model.SerializeToString())


@pytest.fixture(scope="module")
def tied(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return single_file_models.tied(tmp_path_factory.mktemp("tied"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return single_file_models.both(tmp_path_factory.mktemp("both"))


@st.composite
def decodings(draw: Any) -> dict[str, Any]:
    """Options, mostly neutral ones, so that one does not hide what another does."""
    beams = draw(st.sampled_from([1, 2, 3, 4, 5]))
    longest = draw(st.sampled_from([single_file_models.POSITIONS] * 3 + [1, 3]))
    return {
        "beams": beams,
        "max_new_tokens": longest,
        "min_new_tokens": min(longest, draw(st.sampled_from([0, 0, 0, 2, 4]))),
        "length_penalty": draw(st.sampled_from([1.0, 1.0, 2.0, 0.6, 0.0, -1.0])),
        "early_stopping": draw(st.sampled_from([False, True, "never"])),
        "no_repeat_ngram_size": draw(st.sampled_from([0, 0, 0, 1, 2, 3, 6, 8])),
        "repetition_penalty": draw(st.sampled_from([1.0, 1.0, 1.0, 1.5, 0.7])),
        "num_return_sequences": draw(st.integers(1, beams)),
        "suppress_tokens": draw(st.sampled_from([(), (), (0, 1, 3), (2, 5)])),
    }


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=decodings(), seed=st.integers(0, 2**32 - 1))
@example(asked={"beams": 2, "early_stopping": True, "num_return_sequences": 2}, seed=0)
@example(asked={"beams": 2, "early_stopping": "never", "num_return_sequences": 2}, seed=0)
@example(asked={"beams": 4, "early_stopping": "never", "num_return_sequences": 4}, seed=1)
@example(asked={"beams": 4, "num_return_sequences": 4}, seed=2)
def test_ties_extremes_and_options_are_those_of_the_specification(
    tied: Bundle, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], seed: int
) -> None:
    monkeypatch.setenv("EDGECAP_BEAM", "reference")
    captioner, file = build(tied, **asked)
    for pixels in tables(seed):
        check_equal(captioner, file, pixels, **asked)


def tables(seed: int) -> Iterator[np.ndarray]:
    """Pictures for ``tied``: what ties, ends early, cannot go on or is no number."""
    rng = np.random.default_rng(seed)
    size, vocab = single_file_models.SIZE, single_file_models.VOCAB
    yield np.full((size, size, 3), 1, np.uint8)  # sentences of every length tie
    for number in range(6):
        pixels = rng.integers(0, 256 if number == 0 else 250, size * size * 3, np.uint8)
        rows = pixels[: len(pixels) // vocab * vocab].reshape(-1, vocab)
        if number in (1, 2):
            rows[rng.random(len(rows)) < 0.4] = 253
        if number > 2:  # sharp rows and flat ones, the end token often second
            rows[:] = 0
            sharp = rng.random(len(rows)) < 0.7
            rows[sharp, rng.integers(0, vocab, sharp.sum())] = 3
            rows[rng.random(len(rows)) < 0.7, single_file_models.EOS] = 2
        yield pixels.reshape(size, size, 3)


def test_a_row_without_any_token_is_no_error(tied: Bundle) -> None:
    captioner, file = build(tied, beams=3)
    pixels = np.full((single_file_models.SIZE,) * 2 + (3,), 253, np.uint8)
    with np.errstate(all="ignore"):
        check_equal(captioner, file, pixels, beams=3)
    assert file(pixels)["caption"].tolist() == [""]


@pytest.mark.parametrize("caches", ["grow", "fixed"])
@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("kind", ["attention", "recurrent", "both"])
def test_both_kinds_of_state(
    kind: str, beams: int, caches: str, make_bundle: Callable[..., Path], both: Bundle
) -> None:
    bundle = both if kind == "both" else read_bundle(make_bundle(kind == "recurrent"))
    asked = {"beams": beams, "min_new_tokens": 4, "num_return_sequences": beams}
    captioner, file = build(bundle, caches=caches, **asked)
    said = [check_equal(captioner, file, p, **asked) for p in pictures(12, tiny_models.SIZE)]
    assert len(set.union(*said)) > 3 * beams / 2, "too few sentences to tell anything"


def test_the_loop_ends_when_the_search_does(tied: Bundle, tmp_path: Path) -> None:
    import onnxruntime as ort

    model = build_model(tied, Captioner(tied).options(beams=1), "grow").SerializeToString()
    counts = []
    for pixel in (3, 0):  # the end token's logit against 1 for all others
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / f"profile{pixel}")
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        table = np.ones(single_file_models.SIZE**2 * 3, np.uint8)
        table[single_file_models.EOS :: single_file_models.VOCAB] = pixel
        pixels = table.reshape(single_file_models.SIZE, single_file_models.SIZE, 3)
        length = session.run(["length"], {"image": pixels})[0][0]
        events = json.loads(Path(session.end_profiling()).read_text())
        steps = [e for e in events if e["name"].startswith("search/ArgMax") and "dur" in e]
        kernels = [e for e in steps if e["name"].endswith("_kernel_time")]
        counts.append((int(length), len(kernels)))
    assert counts == [(1, 1), (single_file_models.POSITIONS,) * 2]


def test_it_is_one_file_of_standard_operators(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    path = write_single_file(bundle, tmp_path / "one.onnx", SingleFileOptions(beams=2))
    assert [p.name for p in tmp_path.iterdir()] == ["one.onnx"]
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 20)]
    loops = [node for node in model.graph.node if node.op_type == "Loop"]
    assert len(loops) == 1
    inner = loops[0].attribute[0].g.node
    assert {node.domain for node in (*model.graph.node, *inner)} == {""}
    assert not [t for t in model.graph.initializer if t.external_data]
    size = tiny_models.SIZE
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [size, size, 3]
    props = {item.key: item.value for item in model.metadata_props}
    assert props["name"] == bundle.manifest.name
    assert props["version"] == bundle.manifest.version
    assert props["licence"] == bundle.manifest.licence
    assert props["bundle_sha256"] == sha256(tiny_bundle.read_bytes()).hexdigest()
    assert json.loads(props["decoding"])["beams"] == 2
    assert json.loads(props["image"])["size"] == size


def test_what_has_no_such_form_is_refused_in_one_line(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    bundle = read_bundle(make_bundle())
    with pytest.raises(OptionsError, match=r"does not end in \.onnx"):
        write_single_file(bundle, tmp_path / "one.bin", SingleFileOptions())
    with pytest.raises(OptionsError, match="caches is 'small'"):
        SingleFileOptions(caches="small")  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="beams is 99"):
        write_single_file(bundle, tmp_path / "one.onnx", SingleFileOptions(beams=99))
    with pytest.raises(OptionsError, match="has 12 positions"):
        write_single_file(bundle, tmp_path / "one.onnx", SingleFileOptions(max_new_tokens=13))
    with pytest.raises(BundleError, match="cannot write"):
        write_single_file(bundle, tmp_path / "absent" / "one.onnx", SingleFileOptions())
    decoder = onnx.load_from_string(bundle.files["decoder.onnx"])
    for node in decoder.graph.node:
        if node.op_type == "MatMul":
            node.op_type, node.domain = "TransposeMatMul", "com.microsoft"
    decoder.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    files = {**bundle.files, "decoder.onnx": decoder.SerializeToString()}
    odd = single_file_models.write(tmp_path, files)
    with pytest.raises(BundleError, match=r"decoder\.onnx uses com\.microsoft"):
        write_single_file(odd, tmp_path / "one.onnx", SingleFileOptions())
    assert [p.name for p in tmp_path.iterdir()] == ["small.edgecap"]


def test_a_graph_that_says_something_else_is_not_written(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecap.export.single_file import loop

    def forgetful(*arguments: Any) -> Any:
        """Every slot is every row's past."""
        carried = original(*arguments)
        search = arguments[1]
        always = search("Or", carried.after, search("Not", carried.after))
        return loop._Carried(carried.name, carried.first, always, carried.dtype, carried.shape)

    original = loop._ancestry
    monkeypatch.setattr(loop, "_ancestry", forgetful)
    with pytest.raises(BundleError, match="where the bundle says"):
        write_single_file(read_bundle(tiny_bundle), tmp_path / "one.onnx", SingleFileOptions())
    assert not list(tmp_path.iterdir())
