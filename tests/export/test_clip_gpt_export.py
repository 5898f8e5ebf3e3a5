"""CLIP + GPT, and the Image Transformer on other encoders: bundles say what torch says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
transformers = pytest.importorskip("transformers")
cv2 = pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")

from edgecap.export.bundle import ExportOptions, export_bundles  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.runtime.decoding.loop import generate  # noqa: E402
from edgecap.runtime.image import load_image, resize_image  # noqa: E402
from edgecap.training.checkpoint import load_model, save_model  # noqa: E402
from edgecap.training.data import CaptionedImage  # noqa: E402
from edgecap.training.models import CaptionModel, make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.torch_engine import TorchEngine  # noqa: E402
from edgecap.training.validate import SPECIAL  # noqa: E402
from edgecap.training.vocabulary import build_word_tokenizer  # noqa: E402

WORDS = [f"{a}{b}" for a in "abcdefghi" for b in "klmnopqrst"]
CLIP = {"image_size": 32, "patch": 16, "width": 32, "depth": 1, "heads": 2, "hidden": 48}
CLIP |= {"projection": 24}
RESNET = {"image_size": 64, "stem": 8, "widths": [16, 16, 32, 64], "depths": [1, 1, 1, 1]}
GPT = {"width": 48, "layers": 2, "heads": 4, "prefix": 5}
GPT |= {"mapper": "transformer", "mapper_tokens": 3, "mapper_layers": 1, "mapper_heads": 4}
IMAGE = {"width": 48, "heads": 4, "hidden": 64, "decoder_layers": 1}
CASES: dict[str, tuple[str, EncoderOptions, dict[str, Any]]] = {
    "clip-gpt": (
        "clip-gpt",
        EncoderOptions("clip-vision", settings=CLIP, tuned_from=3),
        GPT,
    ),
    "patches": (
        "image-transformer",
        EncoderOptions("patches", settings={"image_size": 64, "patch": 16, "width": 32}),
        IMAGE,
    ),
    "resnet50": ("image-transformer", EncoderOptions("resnet50", settings=RESNET), IMAGE),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    paths = [folder / f"{name}.png" for name in ("cat", "coffee", "astronaut", "rocket")]
    for path in paths:
        cv2.imwrite(str(path), getattr(data, path.stem)()[..., ::-1])
    return paths


def peaked(model: CaptionModel) -> None:
    """Features and logits of the usual size, so that pictures differ and equality is a test."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    if model.family == "clip-gpt":
        for name, parameter in model.gpt.named_parameters():
            if parameter.ndim == 2 and not name.startswith("wpe"):
                torch.nn.init.normal_(parameter, std=0.4)
    else:
        torch.nn.init.normal_(model.embed.weight)
        for layer in model.layers():
            torch.nn.init.normal_(layer.cross_out.weight)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_bundle_equals_torch_beam_for_beam(
    case: str, photographs: list[Path], tmp_path: Path
) -> None:
    family, encoder, options = CASES[case]
    tokenizer = build_word_tokenizer([" ".join(WORDS)], 1)
    torch.manual_seed(3)
    options = {"vocab_size": tokenizer.get_vocab_size(), "max_positions": 8, **options}
    model = make_model(family, encoder, options)
    peaked(model)
    save_model(tmp_path / "checkpoint", model, tokenizer.to_str(), {"epoch": 1})
    export = ExportOptions(name="small", calibration_images=4, novelty_images=4)
    images = [CaptionedImage(path.name, path, ()) for path in photographs]
    bundle, small = export_bundles(
        tmp_path / "checkpoint", images, tmp_path / "f.edgecap", tmp_path / "i.edgecap", export
    )
    engine = TorchEngine(load_model(tmp_path / "checkpoint")[0])
    size = engine.image_size
    pixels = np.stack([resize_image(load_image(path), size) for path in photographs])
    encoded = engine.encode(pixels)
    captioner = Captioner(bundle, threads=1)
    found = captioner.encode(list(pixels))
    for name, value in encoded.memory.items():
        np.testing.assert_allclose(found.memory[name], value, atol=2e-4 * np.abs(value).max())
    said = set()
    for beams in (1, 4):
        # Untrained models say one word again and again.
        asked = {"beams": beams, "no_repeat_ngram_size": 1}
        expected = generate(engine, encoded, captioner.options(**asked), SPECIAL).hypotheses
        for (best, *_), caption in zip(expected, captioner(photographs, **asked), strict=True):
            assert caption.tokens == best.tokens
            assert caption.score == pytest.approx(best.score, abs=1e-4)
            said.add(tuple(caption.tokens))
    assert len(said) > 2, "captions do not depend on the pictures, so their equality says little"
    close = (Captioner(small, threads=1).encode(list(pixels)).features * found.features).sum(-1)
    assert close.min() > 0.98
