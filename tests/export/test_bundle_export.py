"""Exported bundles say what the torch model says, beam for beam."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")

from edgecap.export.bundle import ExportOptions, export_bundles  # noqa: E402
from edgecap.export.quantize import (  # noqa: E402
    QuantizeOptions,
    quantize_encoder,
    store_weights_int8,
)
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.runtime.decoding.loop import generate  # noqa: E402
from edgecap.runtime.image import load_image, resize_image  # noqa: E402
from edgecap.training.checkpoint import load_model, save_model  # noqa: E402
from edgecap.training.data import CaptionedImage  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.torch_engine import TorchEngine  # noqa: E402
from edgecap.training.validate import SPECIAL  # noqa: E402
from edgecap.training.vocabulary import build_word_tokenizer  # noqa: E402


def resize(path) -> np.ndarray:
    return resize_image(load_image(path), 224)


WORDS = [f"{a}{b}" for a in "abcdefghi" for b in "klmnopqrst"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    """A small model with random weights, its checkpoint, two bundles and some photographs."""
    folder = tmp_path_factory.mktemp("export")
    paths = []
    for name in ("cat", "coffee", "astronaut", "rocket"):
        paths.append(folder / f"{name}.png")
        cv2.imwrite(str(paths[-1]), getattr(data, name)()[..., ::-1])
    tokenizer = build_word_tokenizer([" ".join(WORDS)], 1)
    torch.manual_seed(3)
    images = [CaptionedImage(path.name, path, ()) for path in paths]
    options = {"vocab_size": tokenizer.get_vocab_size(), "max_positions": 8}
    options |= {"width": 64, "heads": 4, "hidden": 96}
    model = make_model("image-transformer", EncoderOptions(), options)
    # Peaked logits and features of the usual size, so that equality is a test.
    torch.nn.init.normal_(model.embed.weight)
    save_model(folder / "checkpoint", model, tokenizer.to_str(), {"epoch": 1})
    export = ExportOptions(name="small", calibration_images=4, novelty_images=4)
    bundles = export_bundles(
        folder / "checkpoint", images, folder / "f.edgecap", folder / "i.edgecap", export
    )
    return load_model(folder / "checkpoint")[0], bundles, paths


@pytest.mark.parametrize("beams", [1, 4])
def test_float_bundle_equals_torch(made, beams: int) -> None:
    model, (bundle, _), paths = made
    engine, captioner = TorchEngine(model), Captioner(bundle, threads=1)
    images = np.stack([resize(path) for path in paths])
    options = captioner.options(beams=beams)
    expected = generate(engine, engine.encode(images), options, SPECIAL).hypotheses
    for (best, *_), caption in zip(expected, captioner(paths, beams=beams), strict=True):
        assert caption.tokens == best.tokens
        assert caption.score == pytest.approx(best.score, abs=1e-4)


def test_int8_bundle_is_smaller_and_close(made) -> None:
    _, (large, small), paths = made
    assert small.path.stat().st_size < 0.4 * large.path.stat().st_size
    encoded = [
        Captioner(bundle, threads=1).encode([resize(path) for path in paths])
        for bundle in (large, small)
    ]
    cosine = (encoded[0].features * encoded[1].features).sum(-1)
    assert cosine.min() > 0.9
    assert np.isfinite(encoded[1].novelty).all()


def test_static_quantisation_keeps_outer_convolutions_in_float(made) -> None:
    _, (large, _), paths = made
    encoder = onnx.load_from_string(large.files["encoder.onnx"])
    options = QuantizeOptions(static=True, float_first=2, float_last=50)
    graph = quantize_encoder(encoder, [resize(path) for path in paths], options).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    fed = [producers.get(n.input[0]) for n in graph.node if n.op_type == "Conv"]
    assert len(fed) == 58
    assert fed.count("DequantizeLinear") == 6


def test_batches_do_not_change_captions(made) -> None:
    _, (_, bundle), paths = made
    captioner = Captioner(bundle, threads=1)
    together = captioner(paths)
    for path, caption in zip(paths, together, strict=True):
        alone = captioner(path)
        assert alone.tokens == caption.tokens
        assert alone.score == pytest.approx(caption.score, abs=1e-3)


def test_int8_weights_round_to_the_nearest_step(made) -> None:
    from onnx import numpy_helper

    decoder = onnx.load_from_string(made[1][0].files["decoder.onnx"])
    stored = store_weights_int8(decoder)
    before = {i.name: numpy_helper.to_array(i) for i in decoder.graph.initializer}
    after = {i.name: numpy_helper.to_array(i) for i in stored.graph.initializer}
    replaced = [name for name in before if f"{name}.int8" in after]
    assert len(replaced) >= 10
    for name in replaced:
        integers, scale = after[f"{name}.int8"], after[f"{name}.scale"]
        assert integers.dtype == np.int8
        assert np.abs(integers * scale - before[name]).max() <= scale.max() / 2 + 1e-7


def test_the_graphs_pass_the_checker_and_have_only_named_free_sides(made) -> None:
    for bundle in made[1]:
        for name in ("encoder.onnx", "decoder.onnx"):
            graph = onnx.load_from_string(bundle.files[name])
            onnx.checker.check_model(graph)
            assert graph.opset_import[0].version >= 18
        sides = {
            side
            for spec in (*bundle.manifest.graphs.decoder.inputs,)
            for side in spec.shape
            if isinstance(side, str)
        }
        assert sides == {"R", "B", "S"}
