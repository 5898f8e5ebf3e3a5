"""Encoders against the reference networks of transformers, and weights in its format."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from transformers import image_utils  # noqa: E402

from edgecap.runtime.errors import DataError, MissingExtraError  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions, make_encoder  # noqa: E402

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "image_size": 32,
    "patch_size": 8,
}
RESNET = {"embedding_size": 6, "hidden_sizes": [8, 12, 16, 24], "depths": [1, 2, 2, 1]}
IMAGENET = (image_utils.IMAGENET_DEFAULT_MEAN, image_utils.IMAGENET_DEFAULT_STD)
HALF = (image_utils.IMAGENET_STANDARD_MEAN, image_utils.IMAGENET_STANDARD_STD)
CLIP = (image_utils.OPENAI_CLIP_MEAN, image_utils.OPENAI_CLIP_STD)


def reference(name: str) -> Any:
    """A whole model as it is published: classifier, or both halves of CLIP."""
    torch.manual_seed(5)
    t = transformers
    if name.startswith("resnet"):
        return t.ResNetForImageClassification(t.ResNetConfig(**RESNET, num_labels=7))
    if name == "mobilenet-v2":
        config = t.MobileNetV2Config(depth_multiplier=0.35, num_labels=7)
        return t.MobileNetV2ForImageClassification(config)
    if name == "vit":
        return t.ViTForImageClassification(t.ViTConfig(**SIZES, num_labels=7))
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    config = t.CLIPConfig(text_config=text, vision_config=SIZES, projection_dim=20)
    return t.CLIPModel(config)


def expected(name: str, model: Any, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's map [B, N, C] and pooled vector, from pixels as its processor scales them."""
    mean, std = IMAGENET if name.startswith("resnet") else CLIP if "clip" in name else HALF
    x = (pixels.double() / 255 - torch.tensor(mean).double()) / torch.tensor(std).double()
    x = x.permute(0, 3, 1, 2).float()
    with torch.no_grad():
        if name == "clip-vision":
            found = model.vision_model(x)
            return found.last_hidden_state[:, 1:], model.get_image_features(x).pooler_output
        if name == "vit":
            found = model.vit(x).last_hidden_state
            return found[:, 1:], found[:, 0]
        found = model.base_model(x)
        return found.last_hidden_state.flatten(2).mT, found.pooler_output.flatten(1)


NAMES = ["resnet50", "resnet101", "mobilenet-v2", "vit", "clip-vision"]


@pytest.mark.parametrize("name", NAMES)
def test_published_folder_gives_the_references_features(name: str, tmp_path: Path) -> None:
    model = reference(name).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    model.save_pretrained(tmp_path)
    small = {"image_size": 64} if name in NAMES[:3] else {}
    made = make_encoder(EncoderOptions(name, str(tmp_path), settings=small)).eval()
    size = made.image_size
    pixels = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    with torch.no_grad():
        features = made(made.frozen(pixels))
    grid, pooled = expected(name, model, pixels)
    torch.testing.assert_close(features.maps["grid"], grid, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(features.pooled, pooled, atol=2e-5, rtol=1e-4)
    # Its sizes came from config.json; the weights are not needed to build it again.
    again = make_encoder(made.made_with, pretrained=False)
    again.load_state_dict(made.state_dict())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet50", 25.557032 - 2.049),
        ("resnet101", 44.54916 - 2.049),
        ("mobilenet-v2", 3.504872 - 1.281),
        ("vit", 86.567656 - 0.769),
        ("clip-vision", 87.849216),
    ],
)
def test_size_is_the_published_one_without_the_classifier(name: str, millions: float) -> None:
    with torch.device("meta"):
        made = make_encoder(EncoderOptions(name))
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=1e-6)
    at_224 = {"vit": 14 * 14}.get(name, 7 * 7)
    assert (made.image_size, made.places) == (224, at_224)


def test_every_tensor_of_the_published_clip_has_its_place() -> None:
    """The image half of openai/clip-vit-base-patch32, name for name."""
    block = [
        f"{part}.{kind}"
        for part in (
            *(f"self_attn.{p}_proj" for p in ("q", "k", "v", "out")),
            "layer_norm1",
            "layer_norm2",
            "mlp.fc1",
            "mlp.fc2",
        )
        for kind in ("weight", "bias")
    ]
    names = {f"vision_model.encoder.layers.{i}.{name}" for i in range(12) for name in block}
    names |= {
        f"vision_model.{norm}.{kind}"
        for norm in ("pre_layrnorm", "post_layernorm")
        for kind in ("weight", "bias")
    }
    names |= {
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "visual_projection.weight",
    }
    with torch.device("meta"):
        state = make_encoder(EncoderOptions("clip-vision")).net.state_dict()
    assert set(state) == names
    assert state["visual_projection.weight"].shape == (512, 768)
    assert state["vision_model.embeddings.patch_embedding.weight"].shape == (768, 3, 32, 32)
    assert state["vision_model.embeddings.position_embedding.weight"].shape == (50, 768)


def test_names_of_older_files_load(tmp_path: Path) -> None:
    """ViT as files of transformers 4 spell it."""
    model = reference("vit").eval()
    old = {}
    for name, value in model.state_dict().items():
        name = name.replace("vit.layers.", "vit.encoder.layer.")
        for today, then in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            name = name.replace(f"attention.{today}", f"attention.attention.{then}")
        name = name.replace("attention.o_proj", "attention.output.dense")
        name = name.replace("mlp.fc1", "intermediate.dense").replace("mlp.fc2", "output.dense")
        old[name] = value
    assert "vit.encoder.layer.2.attention.attention.query.weight" in old
    torch.save(old, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    made = make_encoder(EncoderOptions("vit", str(tmp_path))).eval()
    pixels = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        pooled = made(made.frozen(pixels)).pooled
    torch.testing.assert_close(pooled, expected("vit", model, pixels)[1], atol=2e-5, rtol=1e-4)


def test_scaling_comes_from_the_processor_file(tmp_path: Path) -> None:
    reference("vit").save_pretrained(tmp_path)
    mean = [0.1, 0.2, 0.3]
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    made = make_encoder(EncoderOptions("vit", str(tmp_path)))
    torch.testing.assert_close(made.mean.flatten(), 255 * torch.tensor(mean))
    torch.testing.assert_close(made.std.flatten(), torch.full((3,), 127.5))


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    reference("vit").save_pretrained(tmp_path)
    wrong = [
        ("resnet50", str(tmp_path), {"image_size": 64}, "is not this network: it has no embedder"),
        ("vit", str(tmp_path), {"width": 48}, "is of another size.*give settings that fit"),
        ("vit", str(tmp_path), {"depth": 4}, "it has no layers.3"),
        ("vit", str(tmp_path / "nowhere"), {}, "no weights at .*nowhere; give a file, a folder"),
    ]
    for name, weights, settings, line in wrong:
        with pytest.raises(DataError, match=line) as caught:
            make_encoder(EncoderOptions(name, weights, settings=settings))
        assert "\n" not in str(caught.value)


def test_a_hub_that_is_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="download the repository and give its folder") as caught:
        make_encoder(EncoderOptions("clip-vision", "owner/a-model-that-nobody-has"))
    assert "\n" not in str(caught.value)


def test_files_that_hold_code_are_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"layer": Trap()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be read as tensors"):
        make_encoder(EncoderOptions("vgg16", str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes(b"nothing of that kind")
    with pytest.raises(DataError, match="cannot be read as tensors"):
        make_encoder(EncoderOptions("resnet50", str(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any, **more: Any) -> Any:
        if name == "transformers":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"install edgecap\[train\]"):
        make_encoder(EncoderOptions("vit"))
