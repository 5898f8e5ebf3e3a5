"""Every encoder that is a chain of layers: what is frozen, what is trained, what is cached."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training.models.encoders import ENCODERS, EncoderOptions, make_encoder  # noqa: E402

TRANSFORMER = {"image_size": 32, "patch": 16, "width": 16, "depth": 2, "heads": 2, "hidden": 24}
RESNET = {"image_size": 64, "stem": 4, "widths": [8, 8, 16, 16], "depths": [1, 2, 1, 1]}
# Name -> reduced settings, layers, places, map's width, pooled width.
SMALL: dict[str, tuple[dict[str, Any], int, int, int, int]] = {
    "vgg16": ({"image_size": 32, "widths": [4, 4, 8, 8, 12]}, 13, 4, 12, 12),
    "resnet50": (RESNET, 5, 4, 16, 16),
    "resnet101": (RESNET, 5, 4, 16, 16),
    "mobilenet-v2": ({"image_size": 64, "width": 0.1}, 18, 4, 1280, 1280),
    "vit": (TRANSFORMER, 4, 4, 16, 16),
    "clip-vision": ({**TRANSFORMER, "projection": 20}, 4, 4, 16, 20),
    "patches": ({"image_size": 32, "patch": 8, "width": 12}, 1, 16, 12, 12),
}
CUTS = [(name, cut) for name, (_, n, *_) in SMALL.items() for cut in sorted({0, 1, n // 2, n})]


def encoder(name: str, cut: int | None = None, weights: str = ""):
    options = EncoderOptions(name, weights, cut, SMALL[name][0])
    made = make_encoder(options, pretrained=False)
    generator = torch.Generator().manual_seed(1)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return made


def pixels(count: int, size: int):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def test_every_encoder_of_the_table_is_tested() -> None:
    own = {name for name, module in ENCODERS.items() if module.startswith("edgecap.")}
    assert set(SMALL) == own - {"mobilenet-edgetpu"}


@pytest.mark.parametrize("name", SMALL)
def test_shapes_are_those_it_says(name: str) -> None:
    _, layers, places, width, pooled = SMALL[name]
    made = encoder(name).eval()
    with torch.no_grad():
        features = made(made.frozen(pixels(2, made.image_size)))
    assert {key: value.shape for key, value in features.maps.items()} == {
        "grid": (2, places, width)
    }
    assert features.pooled.shape == (2, pooled)
    assert (made.places, made.widths, made.features) == (places, {"grid": width}, pooled)
    assert len(made.parts()) == layers


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_tuned_from_trains_just_what_it_says_and_changes_no_feature(name: str, cut: int) -> None:
    whole, made = encoder(name, 0), encoder(name, cut)
    made.load_state_dict(whole.state_dict())
    x = pixels(2, made.image_size)
    before = {key: value.clone() for key, value in made.state_dict().items()}
    made.train()
    cached = tuple(part.clone() for part in made.frozen(x))
    assert not any(part.requires_grad for part in cached)
    features = made(cached)
    with torch.no_grad():
        expected = whole.eval()(whole.frozen(x))
    torch.testing.assert_close(features.pooled, expected.pooled, atol=1e-5, rtol=1e-4)
    for key, value in expected.maps.items():
        torch.testing.assert_close(features.maps[key], value, atol=1e-5, rtol=1e-4)
    layers = [[p for m in part for p in m.parameters()] for part in made.parts()]
    tuned = {id(p) for p in made.tuned_parameters()}
    assert tuned == {id(p) for layer in layers[cut:] for p in layer}
    # Every parameter belongs to a layer, and none to two.
    assert sorted(id(p) for layer in layers for p in layer) == sorted(
        id(p) for p in made.parameters()
    )
    if tuned:
        total = features.pooled.square().sum() + features.maps["grid"].square().sum()
        total.backward()
    for number, layer in enumerate(layers):
        assert {p.grad is not None for p in layer} == {number >= cut}, f"layer {number}"
    for key, value in made.state_dict().items():
        assert torch.equal(value, before[key]), f"{key} changed in training mode"


@pytest.mark.parametrize("name", SMALL)
def test_without_weights_all_is_trained_and_with_them_the_encoders_default(name: str) -> None:
    everything = {id(p) for p in encoder(name).parameters()}
    assert len(everything) == len(list(encoder(name).tuned_parameters()))
    made = encoder(name, weights="somewhere")
    tuned = sum(p.numel() for p in made.tuned_parameters())
    count = sum(p.numel() for p in made.parameters())
    assert made.cut == {"vit": 4, "clip-vision": 4}.get(name, made.TUNED)
    assert tuned == count if made.cut == 0 else tuned < count


@pytest.mark.parametrize("name", SMALL)
def test_it_is_made_again_from_what_it_was_made_with(name: str) -> None:
    import json
    from dataclasses import asdict

    made = encoder(name)
    written = json.loads(json.dumps(asdict(made.made_with)))
    again = make_encoder(EncoderOptions(**written), pretrained=False)
    again.load_state_dict(made.state_dict())
    assert again.made_with == made.made_with


@pytest.mark.parametrize("name", SMALL)
def test_bad_settings_are_one_line_that_says_what_there_is(name: str) -> None:
    layers = SMALL[name][1]
    cases = [
        ({"size": 3}, None, f"{name} has no setting 'size'; it has image_size, .*mean, std"),
        ({"image_size": "large"}, None, "Expected `int`, got `str`.*image_size"),
        ({"image_size": 50}, None, "image_size is 50; give a multiple of"),
        ({"std": [1, 0, 1]}, None, "std is .*; give numbers above 0"),
        ({"mean": [1, 0]}, None, "`array` of length 3, got 2"),
        ({}, layers + 1, f"layers 0 to {layers - 1}, {layers} freezes all"),
        ({}, -1, "tuned_from is -1"),
    ]
    for settings, cut, line in cases:
        with pytest.raises(DataError, match=line) as caught:
            make_encoder(EncoderOptions(name, "", cut, {**SMALL[name][0], **settings}))
        assert "\n" not in str(caught.value)


def test_unknown_names_and_settings_of_encoders_without_any_are_refused() -> None:
    with pytest.raises(DataError, match="unknown encoder 'vgg'; give one of mobilenet-edgetpu,"):
        make_encoder(EncoderOptions("vgg"))
    with pytest.raises(DataError, match="mobilenet-edgetpu has no settings, image_size"):
        make_encoder(EncoderOptions(settings={"image_size": 192}))
    with pytest.raises(DataError, match="patches has no published weights"):
        make_encoder(EncoderOptions("patches", "anything"))
    with pytest.raises(DataError, match="heads is 5; give a divisor of width, 16"):
        make_encoder(EncoderOptions("vit", settings={**TRANSFORMER, "heads": 5}))
    with pytest.raises(DataError, match="heads is 5; give a divisor of width, 16"):
        make_encoder(EncoderOptions("clip-vision", settings={**TRANSFORMER, "heads": 5}))
    with pytest.raises(DataError, match="settings of clip-vision make no network: 'sine'"):
        make_encoder(EncoderOptions("clip-vision", settings={**TRANSFORMER, "activation": "sine"}))
