"""VGG-16 against configuration D of its paper, written out a second time."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions, make_encoder  # noqa: E402

# Names of the convolutions in the published state dict, with their channels; P is a pooling.
LAYERS = (
    "0:64 2:64 P 5:128 7:128 P 10:256 12:256 14:256 P 17:512 19:512 21:512 P 24:512 26:512 28:512"
)


def published() -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the published one, classifier included."""
    generator = torch.Generator().manual_seed(2)
    state, before = {}, 3
    for layer in LAYERS.split():
        if layer == "P":
            continue
        name, _, width = layer.partition(":")
        shape = (int(width), before, 3, 3)
        weight = torch.randn(shape, generator=generator) * (2 / (9 * before)) ** 0.5
        state[f"features.{name}.weight"] = weight
        state[f"features.{name}.bias"] = torch.randn(int(width), generator=generator) * 0.1
        before = int(width)
    for name, shape in (("0", (8, 25088)), ("3", (8, 8)), ("6", (1000, 8))):
        state[f"classifier.{name}.weight"] = torch.zeros(shape)
        state[f"classifier.{name}.bias"] = torch.zeros(shape[0])
    return state


def test_a_published_file_loads_by_name_and_gives_the_papers_network(tmp_path: Path) -> None:
    state = published()
    torch.save(state, tmp_path / "vgg16.pth")
    made = make_encoder(EncoderOptions("vgg16", str(tmp_path / "vgg16.pth"))).eval()
    assert sum(p.numel() for p in made.parameters()) == 14_714_688
    pixels = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = made(made.frozen(pixels))
        x = pixels.permute(0, 3, 1, 2) / 255
        x = x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        x = x / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        for layer in LAYERS.split():
            if layer == "P":
                x = torch.nn.functional.max_pool2d(x, 2)
                continue
            name = f"features.{layer.partition(':')[0]}"
            x = torch.nn.functional.conv2d(
                x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1
            ).relu()
    assert x.shape == (1, 512, 14, 14)
    grid = features.maps["grid"][0].T.view(512, 14, 14)
    torch.testing.assert_close(grid, x[0], atol=5e-4, rtol=1e-3)
    torch.testing.assert_close(features.pooled, x.mean((2, 3)), atol=5e-4, rtol=1e-3)


def test_the_last_block_alone_is_tuned_by_default(tmp_path: Path) -> None:
    made = make_encoder(EncoderOptions("vgg16", "somewhere"), pretrained=False)
    tuned = {id(p) for p in made.tuned_parameters()}
    names = [name for name, p in made.net.named_parameters() if id(p) in tuned]
    assert names == [f"{n}.{kind}" for n in (24, 26, 28) for kind in ("weight", "bias")]


def test_a_file_without_a_layer_is_refused(tmp_path: Path) -> None:
    state = published()
    del state["features.17.bias"]
    torch.save(state, tmp_path / "vgg16.pth")
    with pytest.raises(DataError, match=r"it has no 17\.bias"):
        make_encoder(EncoderOptions("vgg16", str(tmp_path / "vgg16.pth")))
