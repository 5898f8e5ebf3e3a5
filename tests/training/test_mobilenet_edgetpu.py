"""The backbone against its published weights, on photographs that a well-kept package carries."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
data = pytest.importorskip("skimage.data")

from edgecap.runtime.image import resize_image  # noqa: E402
from edgecap.training.models.mobilenet_edgetpu import MobileNetEdgeTPU  # noqa: E402


@pytest.fixture(scope="module")
def network(shared: Path) -> tuple[MobileNetEdgeTPU, torch.Tensor, list[str]]:
    model = MobileNetEdgeTPU()
    weights = shared / "weights"
    classifier = model.load_pretrained(str(weights / "mobilenet_edgetpu_100/model.safetensors"))
    labels = (weights / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    return model.eval(), classifier, labels


@pytest.mark.parametrize(("name", "expected"), [("cat", "Egyptian cat"), ("coffee", "espresso")])
def test_published_weights_classify_as_published(network, name: str, expected: str) -> None:
    model, classifier, labels = network
    picture = torch.from_numpy(resize_image(getattr(data, name)(), 224).copy())
    x = picture.permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        pooled = model.tail(model.trunk(x)).mean((2, 3))
        logits = pooled @ classifier[:, :-1].T + classifier[:, -1]
    assert labels[int(logits.argmax())] == expected


def test_folding_batch_norms_changes_nothing(network) -> None:
    from edgecap.export.graphs import fold_batch_norms
    from edgecap.training.models.image_transformer import (
        ImageTransformer,
        ImageTransformerOptions,
    )

    torch.manual_seed(0)
    captioner = ImageTransformer(ImageTransformerOptions(50, max_positions=4)).eval()
    captioner.backbone.load_state_dict(network[0].state_dict())
    folded = fold_batch_norms(captioner)
    x = torch.rand(1, 3, 224, 224) * 2 - 1
    with torch.inference_mode():
        a = captioner.backbone.tail(captioner.backbone.trunk(x))
        b = folded.backbone.tail(folded.backbone.trunk(x))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
