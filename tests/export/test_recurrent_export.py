"""Recurrent families export as any other: carried state, gathered by parent in the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")

from tiny_encoder import SIZE  # noqa: E402

from edgecap.export.bundle import ExportOptions, export_bundles  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.runtime.decoding.loop import generate  # noqa: E402
from edgecap.runtime.image import load_image  # noqa: E402
from edgecap.training.checkpoint import load_model, save_model  # noqa: E402
from edgecap.training.data import CaptionedImage  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import ENCODERS, EncoderOptions  # noqa: E402
from edgecap.training.torch_engine import TorchEngine  # noqa: E402
from edgecap.training.validate import SPECIAL  # noqa: E402
from edgecap.training.vocabulary import build_word_tokenizer  # noqa: E402

WORDS = [f"{a}{b}" for a in "abcdefghi" for b in "klmnopqrst"]
FAMILIES = {
    "show-and-tell lstm": {"width": 24, "hidden": 24},
    "show-and-tell gru": {"cell": "gru", "width": 24, "hidden": 40, "tied": False},
    "show-attend-tell lstm": {"width": 24, "hidden": 40, "annotation": 16, "scores": 12},
    "show-attend-tell gru": {"cell": "gru", "attention": "hard", "width": 24, "hidden": 40,
                             "annotation": 16, "scores": 12, "tied": False},
}  # fmt: skip


@pytest.fixture(scope="module", params=list(FAMILIES))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small model with random weights, its two bundles and some pictures."""
    folder = tmp_path_factory.mktemp("export")
    colours = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    paths = [folder / f"{n}.png" for n in range(len(colours))]
    for path, colour in zip(paths, colours, strict=True):
        cv2.imwrite(str(path), np.full((SIZE, SIZE, 3), colour, np.uint8))
    tokenizer = build_word_tokenizer([" ".join(WORDS)], 1)
    options = {"vocab_size": tokenizer.get_vocab_size(), "max_positions": 8}
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", "tiny_encoder")
        family = request.param.split()[0]
        model = make_model(family, EncoderOptions("tiny"), options | FAMILIES[request.param])
        # Peaked logits, so that equality is a test.
        torch.nn.init.normal_(model.embed.weight)
        if model.output is not None:
            torch.nn.init.normal_(model.output.weight)
        save_model(folder / "checkpoint", model, tokenizer.to_str(), {"epoch": 1})
        export = ExportOptions(name="small", calibration_images=4, novelty_images=4)
        images = [CaptionedImage(path.name, path, ()) for path in paths]
        bundles = export_bundles(
            folder / "checkpoint", images, folder / "f.edgecap", folder / "i.edgecap", export
        )
        return load_model(folder / "checkpoint")[0], bundles, paths


@pytest.mark.parametrize("beams", [1, 4])
def test_a_float_bundle_equals_torch_beam_for_beam(made: Any, beams: int) -> None:
    model, (bundle, _), paths = made
    engine, captioner = TorchEngine(model), Captioner(bundle, threads=1)
    images = np.stack([load_image(path) for path in paths])
    options = captioner.options(beams=beams, num_return_sequences=beams)
    expected = generate(engine, engine.encode(images), options, SPECIAL).hypotheses
    found = captioner.search(captioner.encode(list(images)), options).hypotheses
    assert len({best[0].tokens for best in expected}) > 1, "all pictures have one caption"
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.tokens for h in ours[:beams]] == [h.tokens for h in theirs]
        for a, b in zip(ours, theirs, strict=False):
            assert a.score == pytest.approx(b.score, abs=1e-4)


def test_beams_do_change_parents(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would not see: a search in which no row ever leaves its parent."""
    _, (bundle, _), paths = made
    captioner = Captioner(bundle, threads=1)
    from edgecap.runtime.engines.onnx import OnnxStepRunner

    original, seen = OnnxStepRunner.step, []

    def step(self: Any, tokens: Any, position: int, parents: Any, ancestry: Any) -> Any:
        seen.append(np.array(parents))
        return original(self, tokens, position, parents, ancestry)

    monkeypatch.setattr(OnnxStepRunner, "step", step)
    captioner(paths, beams=4)
    assert any((parents != np.arange(len(parents))).any() for parents in seen[2:])


def test_the_state_is_carried_and_no_memory_is_tiled(made: Any) -> None:
    model, (bundle, _), _ = made
    specs = {spec.name: spec.shape for spec in bundle.manifest.graphs.decoder.inputs}
    state = ("h", "c") if model.options.cell == "lstm" else ("h",)
    expected: dict[str, tuple[int | str, ...]] = {
        f"carry.{name}": ("R", model.options.hidden) for name in state
    }
    if model.family == "show-attend-tell":
        expected["memory.annotation"] = ("B", 4, 16)
        expected["memory.score"] = ("B", 4, 12)
    rest = {"token": ("R",), "position": (), "parent": ("R",)}
    assert specs == expected | rest
    outputs = {spec.name for spec in bundle.manifest.graphs.decoder.outputs}
    assert outputs == {"logits", *(f"next.{name}" for name in state)}


def test_the_int8_bundle_is_close(made: Any) -> None:
    _, bundles, paths = made
    captioners = [Captioner(bundle, threads=1) for bundle in bundles]
    images = [load_image(path) for path in paths]
    first = [next(iter(captioner.encode(images).carry.values())) for captioner in captioners]
    assert np.abs(first[0] - first[1]).max() < 0.05
    assert all(caption.text for caption in captioners[1](paths))
