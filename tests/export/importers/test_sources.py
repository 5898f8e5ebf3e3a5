"""What can be opened, what is refused in which words, and what becomes of a source's settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("PIL")

from small_captioners import KINDS, TEXT, byte_level, clip_prefix, word_piece  # noqa: E402

from edgecap.export.importers import IMPORTERS, open_source  # noqa: E402
from edgecap.export.importers.clip_prefix import our_names  # noqa: E402
from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.runtime.text import Tokenizer  # noqa: E402
from edgecap.training.models.prefix import MlpMapper, TransformerMapper  # noqa: E402


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small source, written once."""
    root = tmp_path_factory.mktemp("sources")

    def get(kind: str) -> Path:
        folder = root / kind
        if not folder.exists():
            folder.mkdir()
            KINDS[kind](folder)
        return folder

    return get


@pytest.fixture
def changed(kept: Callable[[str], Path], tmp_path: Path) -> Callable[..., str]:
    """A copy of a source with other settings: ``changed(kind, file, key=value)`` -> its path."""

    def get(kind: str, file: str = "", **settings: Any) -> str:
        folder = tmp_path / "source"
        shutil.copytree(kept(kind), folder)
        if file:
            values = json.loads((folder / file).read_text()) | settings
            values = {key: value for key, value in values.items() if value != "gone"}
            (folder / file).write_text(json.dumps(values))
        return str(folder)

    return get


def refused(source: str, *parts: str) -> None:
    with pytest.raises(DataError) as caught:
        open_source(source)
    text = str(caught.value)
    assert "\n" not in text
    assert source in text
    for part in parts:
        assert part in text


def test_other_models_are_refused_with_the_list(changed: Callable[..., str]) -> None:
    source = changed("git", "config.json", model_type="llava", architectures=["Llava"])
    refused(source, "llava", "export/importers", *IMPORTERS)


def test_another_head_of_a_known_family_is_refused(changed: Callable[..., str]) -> None:
    source = changed("blip", "config.json", architectures=["BlipForQuestionAnswering"])
    refused(source, "BlipForQuestionAnswering", "BlipForConditionalGeneration")


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_other_halves_are_refused(changed: Callable[..., str], part: str) -> None:
    source = changed("vit-gpt2", "config.json", **{part: {"model_type": "beit"}})
    refused(source, part, "beit", "vision_encoder_decoder.py")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights"),
        ("preprocessor_config.json", "has no preprocessor_config.json"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_file(changed: Callable[..., str], file: str, words: str) -> None:
    source = changed("vit-gpt2")
    (Path(source) / file).unlink()
    refused(source, words)


def test_pickled_weights_are_not_read(changed: Callable[..., str]) -> None:
    source = changed("vit-gpt2")
    (Path(source) / "model.safetensors").rename(Path(source) / "pytorch_model.bin")
    refused(source, "pytorch_model.bin", "safetensors")


def test_a_missing_weight_is_not_drawn_at_random(changed: Callable[..., str]) -> None:
    from safetensors.torch import load_file, save_file

    source = changed("vit-gpt2")
    file = Path(source) / "model.safetensors"
    state = load_file(file)
    gone = next(name for name in state if "crossattention.c_proj.weight" in name)
    del state[gone]
    save_file(state, file, {"format": "pt"})
    refused(source, "crossattention.c_proj.weight")


@pytest.mark.parametrize("given", ["no such/folder at all", "/nowhere/here"])
def test_paths_with_mistakes(given: str) -> None:
    refused(given, "hub id")


def test_a_file_is_no_source(kept: Callable[[str], Path]) -> None:
    refused(str(kept("git") / "config.json"), "is a file")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forced_bos_token_id", 3),
        ("forced_eos_token_id", 3),
        ("begin_suppress_tokens", [3]),
        ("bad_words_ids", [[4, 5]]),
        ("guidance_scale", 2.0),
        ("num_beams", 40),
        ("eos_token_id", [3, 4]),
        ("eos_token_id", "gone"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    changed: Callable[..., str], name: str, value: Any
) -> None:
    source = changed("vit-gpt2", "generation_config.json", **{name: value})
    refused(source, "tokens" if name == "eos_token_id" else name.replace("num_", ""))


def test_settings_become_ours(changed: Callable[..., str]) -> None:
    source = changed(
        "vit-gpt2",
        "generation_config.json",
        max_length=16,
        min_length=5,
        num_beams=4,
        length_penalty=0.7,
        early_stopping=True,
        no_repeat_ngram_size=2,
        repetition_penalty=1.3,
        suppress_tokens=[7],
        bad_words_ids=[[9], [0]],
        do_sample=True,
    )
    imported = open_source(source)
    decoding = imported.decoding
    assert (decoding.max_new_tokens, decoding.min_new_tokens) == (15, 4)
    assert (decoding.beams, decoding.length_penalty, decoding.early_stopping) == (4, 0.7, True)
    assert (decoding.no_repeat_ngram_size, decoding.repetition_penalty) == (2, 1.3)
    assert decoding.suppress_tokens == (7, 9)  # a bad word that is the end token is let be
    assert any("samples" in note for note in imported.notes)
    assert open_source(source, max_new_tokens=6).model.options.max_positions == 6
    # Their min_length and ours mean the same, end token and all.
    pictures = [np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8) for i in range(6)]
    ends = [len(tokens) for tokens in imported.reference(pictures, 1)]
    assert min(ends) >= 5
    assert max(ends) <= 15


def test_the_licence_is_what_the_card_states(changed: Callable[..., str]) -> None:
    source = changed("vit-gpt2")
    assert open_source(source).licence == ""
    (Path(source) / "LICENSE").write_text("\n  Apache License\nVersion 2.0\n")
    assert open_source(source).licence == "Apache License"
    (Path(source) / "README.md").write_text("---\nlicense: mit\ntags: [x]\n---\n# A model\n")
    assert open_source(source).licence == "mit"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"do_resize": False}, "does not resize"),
        ({"resample": 0}, "filter"),
        ({"size": {"height": 32, "width": 40}}, "equal height and width"),
        ({"size": {"shortest_edge": 32}}, "without a centre crop"),
        ({"do_pad": True, "pad_size": {"height": 40, "width": 40}}, "does more than"),
        ({"size": {"height": 48, "width": 48}}, "48 x 48"),
        (
            {"do_center_crop": True, "crop_size": {"height": 48, "width": 48}},
            "cuts 48 pixels out of pictures of 32",
        ),
    ],
)
def test_preprocessing_that_is_refused(
    changed: Callable[..., str], settings: dict[str, Any], words: str
) -> None:
    refused(changed("vit-gpt2", "preprocessor_config.json", **settings), words)


@pytest.mark.parametrize(
    "settings",
    [
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1.1, 0.9], "image_std": [1, 0.9, 1.1]},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120, 110, 100], "image_std": [60, 61, 62]},
        {"size": 32},
    ],
)
def test_pixels_are_those_of_the_source(
    changed: Callable[..., str], settings: dict[str, Any]
) -> None:
    source = changed("vit-gpt2", "preprocessor_config.json", **settings)
    imported = open_source(source)
    processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
    picture = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    theirs = processor(picture, return_tensors="pt")["pixel_values"]
    ours = imported.model.vision.normalise(torch.from_numpy(picture)[None])
    torch.testing.assert_close(ours, theirs.float(), atol=1e-4, rtol=1e-5)


# ---- tokenizers ------------------------------------------------------------------------------


def random_ids(size: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, size, rng.integers(1, 12)).tolist() for _ in range(300)]


@pytest.mark.parametrize("kind", ["vit-gpt2", "blip"])
def test_decoding_is_the_source_s(kept: Callable[[str], Path], kind: str) -> None:
    """Byte-level BPE, and WordPiece whose configuration asks for cleaned-up spaces."""
    imported = open_source(str(kept(kind)))
    words = transformers.AutoTokenizer.from_pretrained(kept(kind))
    spec = imported.tokenizer
    ours = Tokenizer(
        imported.tokenizer_json, (spec.bos, spec.eos, spec.pad, spec.unk), spec.vocab_size
    )
    cases = random_ids(spec.vocab_size) + [
        words(t, add_special_tokens=False).input_ids for t in TEXT
    ]
    for ids in cases:
        assert ours.decode(ids) == " ".join(words.decode(ids, skip_special_tokens=True).split())
    text = "the man's red ball is in the water"
    assert ours.decode(ours.encode(text)) == text


def test_clean_up_is_part_of_the_file(
    kept: Callable[[str], Path], changed: Callable[..., str]
) -> None:
    cleaned = open_source(str(kept("git"))).tokenizer_json
    source = changed("git", "tokenizer_config.json", clean_up_tokenization_spaces=False)
    plain = open_source(source).tokenizer_json
    ids = Tokenizer(plain).encode("the man's red ball")
    assert Tokenizer(plain).decode(ids) == "the man ' s red ball"
    assert Tokenizer(cleaned).decode(ids) == "the man's red ball"


@pytest.mark.parametrize("kind", ["vit-gpt2", "deit-bert"])
def test_slow_tokenizers_are_turned_into_fast_ones(changed: Callable[..., str], kind: str) -> None:
    source = changed(kind)
    folder = Path(source)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    if kind == "vit-gpt2":
        byte_level().model.save(str(folder))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "GPT2Tokenizer"})
        )
    else:
        word_piece().model.save(str(folder))
        (folder / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "BertTokenizer"})
        )
    imported = open_source(source)
    ours = Tokenizer(imported.tokenizer_json, (), imported.tokenizer.vocab_size)
    words = transformers.AutoTokenizer.from_pretrained(source)
    for text in TEXT:
        ids = words(text, add_special_tokens=False).input_ids
        assert ours.encode(text) == ids
        assert ours.decode(ids) == " ".join(words.decode(ids, skip_special_tokens=True).split())


def test_tokens_past_the_model_s_are_left_out(changed: Callable[..., str]) -> None:
    """An added padding token that the embedding never grew for, as hubs have it."""
    source = changed("vit-gpt2")
    words = transformers.AutoTokenizer.from_pretrained(source)
    words.add_special_tokens({"pad_token": "<pad>"})
    words.save_pretrained(source)
    imported = open_source(source)
    assert imported.tokenizer.vocab_size == 400
    assert imported.tokenizer.pad == imported.tokenizer.eos
    assert Tokenizer(imported.tokenizer_json, (), 400).vocab_size == 400


def test_tokenizer_of_another_model(changed: Callable[..., str]) -> None:
    source = changed("git")
    word_piece(200)
    config = json.loads((Path(source) / "tokenizer.json").read_text())
    config["model"]["vocab"] |= {f"extra{i}": 300 + i for i in range(9)}
    (Path(source) / "tokenizer.json").write_text(json.dumps(config))
    refused(source, "309 tokens, its model 300")


# ---- CLIP-prefix -------------------------------------------------------------------------------


def test_the_paper_s_mappers_load(tmp_path: Path) -> None:
    """Against torch's own layers, which the published checkpoints are laid out for, too."""
    generator = torch.Generator().manual_seed(1)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 32))
    names = {f"clip_project.model.{name}": v for name, v in plain.state_dict().items()}
    mapper = MlpMapper(6, 8, 4)
    mapper.load_state_dict(our_names(names))
    x = torch.randn(3, 6, generator=generator)
    torch.testing.assert_close(mapper(x).flatten(1), plain(x))

    layer = torch.nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, norm_first=True, batch_first=True
    ).eval()
    torch.nn.init.zeros_(layer.self_attn.in_proj_bias)
    own = layer.state_dict()
    start, unfold = torch.randn(4, 8, generator=generator), torch.nn.Linear(6, 3 * 8)
    at = "clip_project.transformer.layers.0"
    state = {
        "clip_project.linear.weight": unfold.weight.detach(),
        "clip_project.linear.bias": unfold.bias.detach(),
        "clip_project.prefix_const": start,
        f"{at}.norm1.weight": own["norm1.weight"],
        f"{at}.norm1.bias": own["norm1.bias"],
        f"{at}.norm2.weight": own["norm2.weight"],
        f"{at}.norm2.bias": own["norm2.bias"],
        f"{at}.attn.to_queries.weight": own["self_attn.in_proj_weight"][:8],
        f"{at}.attn.to_keys_values.weight": own["self_attn.in_proj_weight"][8:],
        f"{at}.attn.project.weight": own["self_attn.out_proj.weight"],
        f"{at}.attn.project.bias": own["self_attn.out_proj.bias"],
        f"{at}.mlp.fc1.weight": own["linear1.weight"],
        f"{at}.mlp.fc1.bias": own["linear1.bias"],
        f"{at}.mlp.fc2.weight": own["linear2.weight"],
        f"{at}.mlp.fc2.bias": own["linear2.bias"],
    }
    other = TransformerMapper(6, 8, 4, 3, 1, 2, 0.0)
    other.load_state_dict(our_names(state))
    joined = torch.cat([unfold(x).view(3, 3, 8), start.expand(3, -1, -1)], 1)
    torch.testing.assert_close(other(x), layer(joined)[:, 3:])


def test_clip_prefix_with_a_transformer_mapper(tmp_path: Path) -> None:
    import msgspec

    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
    from edgecap.runtime.image import resize_image
    from edgecap.training.torch_engine import TorchEngine

    clip_prefix(tmp_path, "transformer")
    imported = open_source(str(tmp_path))
    pictures = [np.random.default_rng(i).integers(0, 256, (50, 40, 3), np.uint8) for i in range(6)]
    theirs = imported.reference(pictures, 4)
    engine = TorchEngine(imported.model)  # type: ignore[arg-type]
    encoded = engine.encode(np.stack([resize_image(p, imported.image) for p in pictures]))
    spec = imported.tokenizer
    options = DecodingOptions(**{**msgspec.structs.asdict(imported.decoding), "beams": 4})
    found = generate(engine, encoded, options, SpecialTokens(spec.bos, spec.eos, spec.pad))
    assert [list(best[0].tokens) for best in found.hypotheses] == theirs
    assert len({tuple(tokens) for tokens in theirs}) > 2


def test_clip_prefix_folder_that_lacks_a_part(changed: Callable[..., str]) -> None:
    source = changed("clip-prefix")
    (Path(source) / "mapper.safetensors").unlink()
    refused(source, "mapper.safetensors", "docs/import.md")
