"""MobileNetV2 with its published weights, on photographs that a well-kept package carries."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
data = pytest.importorskip("skimage.data")

from edgecap.runtime.image import resize_image  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions, make_encoder  # noqa: E402


@pytest.fixture(scope="module")
def weights(shared: Path) -> Path:
    return shared / "weights" / "mobilenet_v2_1.0_224"


@pytest.mark.parametrize("tuned_from", [None, 0, 18])
def test_published_weights_classify_as_published(weights: Path, tuned_from: int | None) -> None:
    from safetensors.torch import load_file

    made = make_encoder(EncoderOptions("mobilenet-v2", str(weights), tuned_from)).eval()
    state = load_file(weights / "model.safetensors")
    labels = (weights.parent / "imagenet_labels_1001.txt").read_text().splitlines()
    names = ("cat", "coffee", "rocket")
    pixels = [torch.from_numpy(resize_image(getattr(data, n)(), 224).copy()) for n in names]
    with torch.inference_mode():
        pooled = made(made.frozen(torch.stack(pixels))).pooled
        logits = pooled @ state["classifier.weight"].T + state["classifier.bias"]
    best = [labels[i] for i in logits.argmax(-1)]
    assert best == ["Egyptian cat", "espresso", "missile"]
