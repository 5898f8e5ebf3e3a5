"""Any source to a bundle in any precision, and a gate that refuses what does not say the same."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

import small_encoder  # noqa: E402, F401
from small_project import write_small_set  # noqa: E402

from edgecap.export.gate import Check, GateOptions, along, check_float, tokens  # noqa: E402
from edgecap.export.model import ModelOptions, export_model  # noqa: E402
from edgecap.export.photographs import Photographs, read_photographs  # noqa: E402
from edgecap.export.precision import PRECISIONS, PrecisionOptions  # noqa: E402
from edgecap.export.sources import Source, from_checkpoint, open_source  # noqa: E402
from edgecap.runtime.bundle import read_bundle  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.runtime.errors import DataError, OptionsError  # noqa: E402
from edgecap.training.checkpoint import save_model  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.vocabulary import build_word_tokenizer  # noqa: E402

WORDS = ["wall", *(f"{a}{b}" for a in "abcd" for b in "klmn")]
# Every check of the quantised model passes: these tests look at what is written.
WIDE = GateOptions(max_drop=9.0, agreement=0.0, nats=99.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pictures in which something differs from place to place."""
    import cv2

    folder = tmp_path_factory.mktemp("photographs")
    generator = np.random.default_rng(1)
    for i in range(20):
        coarse = generator.integers(0, 256, (4, 4, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), cv2.resize(coarse, (48, 48)))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "best"
    tokenizer = build_word_tokenizer([" ".join(WORDS)], 1)
    torch.manual_seed(5)
    options = {"vocab_size": tokenizer.get_vocab_size(), "max_positions": 8}
    options |= {"width": 64, "heads": 4, "hidden": 96}
    model = make_model("image-transformer", EncoderOptions("small"), options)
    with torch.no_grad():  # so that captions differ from picture to picture
        for weight in model.parameters():
            weight.mul_(5 if weight.ndim > 1 else 1)
    torch.nn.init.normal_(model.embed.weight)
    save_model(folder, model, tokenizer.to_str(), {"epoch": 1})
    return folder


@pytest.fixture(scope="module")
def source(checkpoint: Path) -> Source:
    opened = from_checkpoint(checkpoint)
    return replace(opened, graphs=functools.cache(opened.graphs))  # once for all tests


def given(folder: Path) -> Photographs:
    return read_photographs(str(folder), 500)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_becomes_a_bundle_that_captions(
    source: Source, photographs: Path, tmp_path: Path, precision: str
) -> None:
    options = ModelOptions(
        name="small", precision=PrecisionOptions(precision), gate=WIDE, threads=1
    )
    out = tmp_path / "x.edgecap"
    made = export_model(source, out, given(photographs), options, tmp_path / "r.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "x.edgecap"]
    captioner = Captioner(out)
    pictures = given(photographs).pixels()
    ours, theirs = tokens(captioner, pictures, 1), source.reference(pictures, 1)
    if precision == "fp32":
        assert ours == theirs
        assert len({tuple(caption) for caption in theirs}) > 3
    else:
        for file in ("encoder.onnx", "decoder.onnx"):
            graph = onnx.load_from_string(made.bundle.files[file])
            if "4" not in precision:  # MatMulNBits is ONNX Runtime's own operator
                onnx.checker.check_model(graph)
        same = np.mean([a == b for a, b in zip(ours, theirs, strict=True)])
        assert same >= (0.2 if "4" in precision else 0.5)
        assert made.bundle.manifest.quantisation.encoder != "float32"
    record = made.bundle.manifest.export
    assert record is not None
    assert record.verdict == "passed"
    assert record.photographs_sha256 == given(photographs).sha256
    assert record.checks == tuple(str(check) for check in made.checks)
    assert [v.name for v in made.variants] == ["fp32", precision][: len(made.variants)]


def test_tensorrts_spelling_says_the_same(
    source: Source, photographs: Path, tmp_path: Path
) -> None:
    given_photographs = given(photographs)
    found = {}
    for target in ("onnxruntime", "tensorrt"):
        options = ModelOptions(
            precision=PrecisionOptions("int8", target, budget=1.0), gate=WIDE, threads=1
        )
        made = export_model(source, tmp_path / f"{target}.edgecap", given_photographs, options)
        encoder = onnx.load_from_string(made.bundle.files["encoder.onnx"])
        kinds = {i.data_type for i in encoder.graph.initializer}
        assert (onnx.TensorProto.UINT8 in kinds) == (target == "onnxruntime")
        pixels = np.stack([Captioner(made.bundle).resize(p) for p in given_photographs.pixels()])
        found[target] = Captioner(made.bundle).engine.encode(pixels).features
    assert (found["onnxruntime"] * found["tensorrt"]).sum(-1).min() > 0.99


def test_what_is_changed_does_not_pass(source: Source, photographs: Path, tmp_path: Path) -> None:
    """A source that says something else at one picture is found out, and nothing is written."""

    def reference(pictures: list[np.ndarray], beams: int) -> list[list[int]]:
        found = source.reference(pictures, beams)
        if beams == 4:
            found[7] = [*found[7][:-1], 5, 5]
        return found

    other = replace(source, reference=reference)
    out = tmp_path / "x.edgecap"
    out.write_bytes(b"what was there before")
    with pytest.raises(DataError, match=r"4 beams 0\.05.*first at photograph 8"):
        export_model(other, out, given(photographs), ModelOptions(threads=1))
    assert out.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [out]


def test_logits_are_compared(source: Source, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.edgecap"
    export_model(source, out, given(photographs), ModelOptions(threads=1))
    pictures = given(photographs).pixels(3)
    strict = GateOptions(logits=0.0, beams=(1,))
    found = check_float(Captioner(out), source.engine, source.reference, pictures, strict)
    assert found[-1].name == "largest difference of a logit"
    assert 0 < found[-1].value < 1e-4
    assert not found[-1].passed


def test_too_few_bits_do_not_pass(source: Source, photographs: Path, tmp_path: Path) -> None:
    options = ModelOptions(
        precision=PrecisionOptions("int4-weights"),
        gate=GateOptions(nats=0.001),
        threads=1,
    )
    with pytest.raises(DataError, match="log-probability"):
        export_model(source, tmp_path / "x.edgecap", given(photographs), options)
    assert not list(tmp_path.iterdir())


def test_int8_leaves_more_in_float_until_it_passes(
    source: Source, photographs: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    options = ModelOptions(
        precision=PrecisionOptions("int8", budget=1.0),
        gate=GateOptions(nats=1e-6, agreement=0.0),
        threads=1,
        notice=said.append,
    )
    with pytest.raises(DataError):
        export_model(source, tmp_path / "x.edgecap", given(photographs), options)
    assert sum("more layers in float" in line for line in said) == 3
    assert any("are few" in line for line in said)


def test_captions_of_people_are_what_int8_is_judged_by(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecap.export.photographs.FEWEST", 12)
    write_small_set(tmp_path / "set")
    there = read_photographs(f"flickr8k:{tmp_path}/set=val", 500)
    assert there.captioned
    options = ModelOptions(precision=PrecisionOptions("int8-dynamic"), gate=WIDE, threads=1)
    made = export_model(
        from_checkpoint(checkpoint), tmp_path / "x.edgecap", there, options, tmp_path / "r.html"
    )
    last = made.checks[-1]
    assert last.name == "drop of CIDEr"
    before, after = (last.scores[name]["CIDEr"] for name in ("fp32", "quantised"))
    assert last.value == pytest.approx(1 - after / before if before else 0)
    assert "CIDEr" in (tmp_path / "r.html").read_text()


def test_without_photographs_a_float_export_says_so(source: Source, tmp_path: Path) -> None:
    said: list[str] = []
    options = ModelOptions(threads=1, notice=said.append)
    made = export_model(source, tmp_path / "x.edgecap", None, options)
    assert made.bundle.manifest.export.verdict == "passed on generated pictures"
    assert "--images" in said[0]
    small = replace(options, precision=PrecisionOptions("int8"))
    with pytest.raises(DataError, match="--images"):
        export_model(source, tmp_path / "y.edgecap", None, small)


def test_a_float_bundle_is_a_source(source: Source, photographs: Path, tmp_path: Path) -> None:
    plain, small = tmp_path / "plain.edgecap", tmp_path / "small.edgecap"
    export_model(source, plain, given(photographs), ModelOptions(threads=1))
    options = ModelOptions(precision=PrecisionOptions("int8-weights"), gate=WIDE, threads=1)
    export_model(open_source(str(plain)), small, given(photographs), options)
    assert small.stat().st_size < 0.7 * plain.stat().st_size
    with pytest.raises(DataError, match="quantised already"):
        export_model(open_source(str(small)), tmp_path / "z.edgecap", given(photographs), options)


def test_a_fine_tuned_checkpoint_is_quantised_as_it_was_trained(
    source: Source, photographs: Path, tmp_path: Path
) -> None:
    from edgecap.export.quantize import STATIC, QuantizeOptions

    tuned = replace(source, quantize=QuantizeOptions(static=True, float_first=1, float_last=0))
    options = ModelOptions(precision=PrecisionOptions("int8"), gate=WIDE, threads=1)
    made = export_model(tuned, tmp_path / "x.edgecap", given(photographs), options)
    assert made.bundle.manifest.quantisation.encoder == STATIC
    encoder = onnx.load_from_string(made.bundle.files["encoder.onnx"])
    fed = {name: node.op_type for node in encoder.graph.node for name in node.output}
    kinds = [fed.get(n.input[0]) for n in encoder.graph.node if n.op_type == "Conv"]
    assert kinds.count("DequantizeLinear") == len(kinds) - 1


def test_products_leave_the_integer_kernels_as_floats(
    source: Source, photographs: Path, tmp_path: Path
) -> None:
    import onnxruntime as ort

    options = ModelOptions(precision=PrecisionOptions("int8", budget=9.0), gate=WIDE, threads=1)
    made = export_model(source, tmp_path / "x.edgecap", given(photographs), options)
    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(made.bundle.files["encoder.onnx"], settings)
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert "MatMulIntegerToFloat" in kinds
    assert "QLinearMatMul" not in kinds


def test_a_step_along_a_caption_is_the_models_own(source: Source) -> None:
    """Against teacher forcing, which computes all positions at once."""
    model = source.engine.model
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    rows = [1, 5, 6, 7]
    found = along(source.engine, pixels, rows)
    with torch.inference_mode():
        encoding = model.encode(model.frozen(torch.from_numpy(pixels[None])))
        hidden = model.decode(encoding, torch.tensor(rows)[None, None]).hidden
        expected = model.logits(hidden)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda p: p, "neither a model.json"),
        (lambda p: p / "absent", "no local folder|nothing at"),
        (lambda p: p / "a.txt", "is a file"),
    ],
)
def test_what_is_no_source_is_refused(tmp_path: Path, make, text: str) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match=text):
        open_source(str(make(tmp_path)))


def test_photographs(photographs: Path, tmp_path: Path) -> None:
    (photographs / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    try:
        assert len(given(photographs)) == 20
    finally:
        (photographs / "broken.jpg").unlink()
    assert len(read_photographs(str(photographs), 17)) == 17
    assert read_photographs(str(photographs), 20, 1).sha256 != given(photographs).sha256
    with pytest.raises(DataError, match="no pictures"):
        read_photographs(str(tmp_path), 50)
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes((photographs / f"{i}.png").read_bytes())
    with pytest.raises(DataError, match=r"has 3 photographs.*give 16 or more"):
        read_photographs(str(tmp_path), 50)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (PrecisionOptions, {"precision": "int3"}),
        (PrecisionOptions, {"budget": -1.0}),
        (GateOptions, {"max_drop": float("nan")}),
        (GateOptions, {"agreement": 2.0}),
    ],
)
def test_options_are_checked(kind, values: dict[str, object]) -> None:
    with pytest.raises(OptionsError):
        kind(**values)


def test_checks_say_which_side_is_good() -> None:
    assert Check("a", 1.0, 1.0, "most").passed
    assert not Check("a", 1.1, 1.0, "most").passed
    assert Check("a", 1.1, 1.0, "least").passed
    assert "FAILED" in str(Check("a", float("nan"), 1.0, "most"))


def test_the_record_survives_the_bundle(source: Source, tmp_path: Path) -> None:
    command = ("edgecap", "export", "a b", "-o", "x.edgecap")
    out = tmp_path / "x.edgecap"
    export_model(source, out, None, ModelOptions(threads=1, command=command))
    record = read_bundle(out).manifest.export
    assert record.command == "edgecap export 'a b' -o x.edgecap"
    assert json.dumps(record.checks)
