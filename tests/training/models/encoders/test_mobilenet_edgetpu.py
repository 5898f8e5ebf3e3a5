"""The backbone against its published weights, on photographs that a well-kept package carries."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
data = pytest.importorskip("skimage.data")

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.runtime.image import resize_image  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions, make_encoder  # noqa: E402
from edgecap.training.models.encoders.mobilenet_edgetpu import MobileNetEdgeTPU  # noqa: E402


@pytest.fixture(scope="module")
def network(shared: Path) -> tuple[MobileNetEdgeTPU, torch.Tensor, list[str]]:
    model = MobileNetEdgeTPU()
    weights = shared / "weights"
    classifier = model.load_classifier(str(weights / "mobilenet_edgetpu_100"))
    labels = (weights / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    return model.eval(), classifier, labels


def picture(name: str) -> torch.Tensor:
    return torch.from_numpy(resize_image(getattr(data, name)(), 224).copy())[None]


@pytest.mark.parametrize(("name", "expected"), [("cat", "Egyptian cat"), ("coffee", "espresso")])
def test_published_weights_classify_as_published(network, name: str, expected: str) -> None:
    model, classifier, labels = network
    with torch.inference_mode():
        pooled = model(model.frozen(picture(name))).pooled
        logits = pooled @ classifier[:, :-1].T + classifier[:, -1]
    assert labels[int(logits.argmax())] == expected


@pytest.mark.parametrize("tuned_from", [0, 2, 5, 6, 8])
def test_where_it_is_cut_changes_what_is_trained_and_nothing_else(network, tuned_from: int) -> None:
    whole, x = network[0], picture("coffee")
    cut = make_encoder(EncoderOptions(tuned_from=tuned_from)).eval()
    cut.load_state_dict(whole.state_dict())
    with torch.inference_mode():
        a, b = whole(whole.frozen(x)), cut(cut.frozen(x))
    for name, value in a.maps.items():
        torch.testing.assert_close(b.maps[name], value, atol=1e-4, rtol=1e-4)
    trained = {id(p) for p in cut.tuned_parameters()}
    assert (id(cut.conv_stem.weight) in trained) == (tuned_from == 0)
    assert (id(next(cut.blocks[5].parameters())) in trained) == (tuned_from <= 5)
    assert bool(trained) == (tuned_from < 8)


def test_a_layer_that_is_not_there_is_refused() -> None:
    with pytest.raises(DataError, match="layers 0 to 7"):
        make_encoder(EncoderOptions(tuned_from=9))


def test_folding_batch_norms_changes_nothing(network) -> None:
    from edgecap.export.graphs import fold_batch_norms

    torch.manual_seed(0)
    options = {"vocab_size": 50, "max_positions": 4}
    captioner = make_model("image-transformer", EncoderOptions(), options).eval()
    captioner.backbone.load_state_dict(network[0].state_dict())
    folded = fold_batch_norms(captioner)
    x = picture("cat")
    with torch.inference_mode():
        a = captioner.backbone(captioner.frozen(x)).pooled
        b = folded.backbone(folded.frozen(x)).pooled
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-3)
