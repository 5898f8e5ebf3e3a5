"""Single files of exported families: recurrent and Transformer, int8 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
cv2 = pytest.importorskip("cv2")

from single_file_models import SingleFile, check_equal, pictures  # noqa: E402

from edgecap.export.bundle import ExportOptions, export_bundles  # noqa: E402
from edgecap.export.single_file import SingleFileOptions, write_single_file  # noqa: E402
from edgecap.runtime.bundle import Bundle  # noqa: E402
from edgecap.runtime.captioner import Captioner  # noqa: E402
from edgecap.training.checkpoint import save_model  # noqa: E402
from edgecap.training.data import CaptionedImage  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import ENCODERS, EncoderOptions  # noqa: E402
from edgecap.training.vocabulary import build_word_tokenizer  # noqa: E402

RECURRENT = {"width": 24, "hidden": 24}
PATCHES = {"image_size": 32, "patch": 16, "width": 32}
IMAGE = {"width": 48, "heads": 4, "hidden": 64, "decoder_layers": 2}


@pytest.fixture(scope="module", params=["show-attend-tell", "image-transformer"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The int8 bundle of a small model with random weights, exported as any other."""
    folder = tmp_path_factory.mktemp("exported")
    images = []
    for number, pixels in enumerate(pictures(4, 32)):
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
        images.append(CaptionedImage(str(number), folder / f"{number}.png", ()))
    tokenizer = build_word_tokenizer([" ".join(f"{a}{b}" for a in "abcdef" for b in "klmnop")], 1)
    sizes = {"vocab_size": tokenizer.get_vocab_size(), "max_positions": 8}
    torch.manual_seed(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "tiny", "tiny_encoder")
        if request.param == "image-transformer":
            model = make_model(
                request.param, EncoderOptions("patches", settings=PATCHES), sizes | IMAGE
            )
            for layer in model.layers():
                torch.nn.init.normal_(layer.cross_out.weight)
        else:
            model = make_model(request.param, EncoderOptions("tiny"), sizes | RECURRENT)
        # Peaked logits, so that equality is a test.
        torch.nn.init.normal_(model.embed.weight)
        save_model(folder / "checkpoint", model, tokenizer.to_str(), {"epoch": 1})
        export = ExportOptions(name="small", calibration_images=4, novelty_images=4)
        return export_bundles(
            folder / "checkpoint", images, folder / "f.edgecap", folder / "i.edgecap", export
        )[1]


@pytest.mark.parametrize(
    "asked",
    [
        {"beams": 1},
        {"beams": 4, "num_return_sequences": 4},
        {"beams": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.4},
    ],
    ids=["greedy", "beams", "processors"],
)
def test_exported_families(exported: Bundle, asked: dict[str, Any], tmp_path: Path) -> None:
    path = write_single_file(exported, tmp_path / "one.onnx", SingleFileOptions(**asked))
    captioner, file = Captioner(exported, threads=1), SingleFile(path)
    said = [check_equal(captioner, file, p, **asked) for p in pictures(8, captioner.image_size)]
    assert len(set.union(*said)) > 1, "all pictures have one caption"
