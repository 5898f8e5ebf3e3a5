"""CLIP + GPT against transformers' GPT-2 on the same weights and the same prefix."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from edgecap.runtime.decoding.loop import generate  # noqa: E402
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens  # noqa: E402
from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training.checkpoint import load_model, save_model  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.models.gpt2 import Gpt2, Gpt2Sizes  # noqa: E402
from edgecap.training.torch_engine import TorchEngine  # noqa: E402

VOCAB, PREFIX, LENGTH = 61, 4, 9
SPECIAL = SpecialTokens(bos=1, eos=2, pad=0)
CLIP = {"image_size": 32, "patch": 16, "width": 16, "depth": 1, "heads": 2, "hidden": 24}
ENCODER = EncoderOptions("clip-vision", settings={**CLIP, "projection": 20})
SMALL = {"width": 32, "layers": 2, "heads": 2, "mapper_heads": 4, "mapper_layers": 2}
SMALL |= {"mapper_tokens": 3, "prefix": PREFIX, "max_positions": LENGTH}


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        bos_token_id=SPECIAL.bos,
        eos_token_id=SPECIAL.eos,
        pad_token_id=SPECIAL.pad,
    )
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def folder(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gpt2")
    reference.save_pretrained(path)
    return path


def captioner(**options: Any) -> Any:
    torch.manual_seed(1)
    return make_model("clip-gpt", ENCODER, {"vocab_size": VOCAB, **SMALL, **options}).eval()


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 32, 32, 3), np.uint8)


def encoded(model: Any, count: int) -> Any:
    with torch.no_grad():
        return model.encode(model.frozen(torch.from_numpy(pictures(count))))


@pytest.mark.parametrize("mapper", ["mlp", "transformer"])
def test_teacher_forcing_is_what_transformers_says(reference, folder: Path, mapper: str) -> None:
    model = captioner(gpt=str(folder), mapper=mapper)
    encoding = encoded(model, 2)
    tokens = torch.randint(0, VOCAB, (2, 3, LENGTH))
    with torch.no_grad():
        found = model.logits(model.decode(encoding, tokens).hidden)
        prefix = model.mapper(encoding.pooled)
        words = reference.transformer.wte(tokens.flatten(0, 1))
        both = torch.cat([prefix.repeat_interleave(3, 0), words], 1)
        expected = reference(inputs_embeds=both).logits[:, PREFIX:].view_as(found)
    assert expected.abs().max() > 3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_memory_is_what_transformers_caches_for_the_prefix(reference, folder: Path) -> None:
    model = captioner(gpt=str(folder))
    encoding = encoded(model, 2)
    with torch.no_grad():
        prefix = model.mapper(encoding.pooled)
        cache = reference(inputs_embeds=prefix, use_cache=True).past_key_values
    assert sorted(encoding.memory) == ["key.0", "key.1", "value.0", "value.1"]
    for i, layer in enumerate(cache.layers):
        for name, theirs in ((f"key.{i}", layer.keys), (f"value.{i}", layer.values)):
            ours = encoding.memory[name]
            assert ours.shape == (2, PREFIX, 32)
            torch.testing.assert_close(ours, theirs.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("mapper", ["mlp", "transformer"])
def test_steps_equal_teacher_forcing_along_changing_beams(folder: Path, mapper: str) -> None:
    model = captioner(gpt=str(folder), mapper=mapper)
    batch, beams = 2, 3
    engine = TorchEngine(model)
    runner = engine.begin(engine.encode(pictures(batch)), beams)
    encoding = encoded(model, batch)
    rows, slots = batch * beams, beams * LENGTH
    generator = np.random.default_rng(2)
    past: list[list[int]] = [[] for _ in range(rows)]
    ancestry = np.zeros((rows, slots), bool)
    parents = np.arange(rows)
    for t in range(LENGTH):
        tokens = generator.integers(0, VOCAB, rows)
        past = [[*past[p], int(w)] for p, w in zip(parents, tokens, strict=True)]
        logits = runner.step(tokens, t, parents, ancestry)
        with torch.no_grad():
            full = torch.tensor(past).view(batch, beams, -1)
            expected = model.logits(model.decode(encoding, full).hidden[:, :, -1]).view(rows, -1)
        np.testing.assert_allclose(logits, expected.numpy(), atol=2e-4)
        within = [generator.integers(b * beams, (b + 1) * beams, beams) for b in range(batch)]
        parents = np.concatenate(within)
        ancestry = ancestry[parents]
        ancestry[np.arange(rows), t * beams + parents % beams] = True


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_of_transformers_generate(reference, folder: Path, beams: int) -> None:
    model, count = captioner(gpt=str(folder)), 12
    # So that pictures tell their captions apart.
    torch.nn.init.normal_(model.mapper.down.weight, std=2.0)
    engine = TorchEngine(model)
    options = DecodingOptions(beams=beams, max_new_tokens=LENGTH, num_return_sequences=beams)
    found = generate(engine, engine.encode(pictures(count)), options, SPECIAL).hypotheses
    with torch.no_grad():
        prefix = model.mapper(encoded(model, count).pooled)
        bos = reference.transformer.wte(torch.full((count, 1), SPECIAL.bos))
        config = transformers.GenerationConfig(
            num_beams=beams,
            do_sample=False,
            max_new_tokens=LENGTH,
            num_return_sequences=beams,
            bos_token_id=SPECIAL.bos,
            eos_token_id=SPECIAL.eos,
            pad_token_id=SPECIAL.pad,
        )
        theirs = reference.generate(
            inputs_embeds=torch.cat([prefix, bos], 1),
            attention_mask=torch.ones(count, PREFIX + 1, dtype=torch.long),
            generation_config=config,
        ).tolist()
    expected = [trim(row) for row in theirs]
    assert [trim(list(h.tokens)) for picture in found for h in picture] == expected
    assert len({tuple(row) for row in expected}) > count // 2


def trim(tokens: list[int]) -> list[int]:
    """Up to EOS, which transformers pads and ours leaves out."""
    return tokens[: tokens.index(SPECIAL.eos)] if SPECIAL.eos in tokens else tokens


def test_a_frozen_gpt_leaves_the_mapper_to_learn(folder: Path) -> None:
    batch = torch.tensor([[[1, 5, 6, 2], [1, 7, 2, 0]]])
    for options, trained in (
        ({"tune_gpt": False}, {"mapper"}),
        ({"tune_gpt": False, "tune_words": True}, {"mapper", "gpt.wte"}),
        # Rows of another vocabulary are random numbers: they have to be learned.
        ({"tune_gpt": False, "vocab_size": 40}, {"mapper", "gpt.wte"}),
        ({"tune_words": False}, {"mapper", "gpt.h", "gpt.wpe", "gpt.ln_f"}),
        ({}, {"mapper", "gpt.h", "gpt.wpe", "gpt.ln_f", "gpt.wte"}),
    ):
        model = captioner(gpt=str(folder), **options).train()
        for parameter in model.backbone.parameters():
            parameter.requires_grad_(False)
        encoding = model.encode(model.frozen(torch.from_numpy(pictures(1))))
        model.loss(encoding, batch, 0.1).total.backward()
        found = {
            name if name.startswith("mapper") else ".".join(name.split(".")[:2])
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        assert {name.partition(".")[0] if "mapper" in name else name for name in found} == trained


def test_it_learns_to_tell_two_pictures_apart() -> None:
    model = captioner(dropout=0.0).train()
    captions = torch.tensor([[[1, 11, 12, 13, 2]], [[1, 21, 22, 2, 0]]])
    frozen = model.frozen(torch.from_numpy(pictures(2)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.loss(model.encode(frozen), captions, 0.0).total.backward()
        optimizer.step()
    engine = TorchEngine(model)
    options = DecodingOptions(beams=3, max_new_tokens=LENGTH)
    found = generate(engine, engine.encode(pictures(2)), options, SPECIAL).hypotheses
    assert [trim(list(best.tokens)) for best, *_ in found] == [[11, 12, 13], [21, 22]]


def test_a_frozen_encoder_caches_the_pooled_vector_alone() -> None:
    frozen = EncoderOptions("clip-vision", settings=ENCODER.settings, tuned_from=3)
    tuned = EncoderOptions("clip-vision", settings=ENCODER.settings, tuned_from=2)
    x = torch.from_numpy(pictures(2))
    models = []
    for encoder, shapes in ((frozen, [(2, 20)]), (tuned, [(2, 5, 16)])):
        torch.manual_seed(1)
        model = make_model("clip-gpt", encoder, {"vocab_size": VOCAB, **SMALL}).eval()
        cached = model.frozen(x)
        assert [part.shape for part in cached] == shapes
        models.append(model.encode(cached))
    torch.testing.assert_close(models[0].memory, models[1].memory)


def test_a_checkpoint_needs_the_published_weights_no_more(folder: Path, tmp_path: Path) -> None:
    source = shutil.copytree(folder, tmp_path / "gpt2")
    model = captioner(gpt=str(source), tune_gpt=False)
    save_model(tmp_path / "checkpoint", model, "{}", {})
    shutil.rmtree(source)
    again = load_model(tmp_path / "checkpoint")[0]
    assert again.options == model.options
    assert again.options.started_from == str(source)
    assert (again.options.width, again.options.tune_words) == (32, False)
    for name, value in encoded(model, 2).memory.items():
        torch.testing.assert_close(encoded(again, 2).memory[name], value)


def test_special_tokens_before_gpts_own_words(reference, folder: Path) -> None:
    """Four ids of ours, then GPT-2's: its rows move up, and BOS and EOS are its <|endoftext|>."""
    model = captioner(gpt=str(folder), vocab_size=VOCAB + 4)
    rows, theirs = model.gpt.wte.weight, reference.transformer.wte.weight
    torch.testing.assert_close(rows[4:], theirs)
    torch.testing.assert_close(rows[[1, 2]], theirs[[-1, -1]])
    assert captioner(gpt=str(folder), vocab_size=VOCAB + 4, tune_gpt=False).options.tune_words is (
        False
    )


def test_every_tensor_of_the_published_gpt2_small_has_its_place() -> None:
    """124 M parameters under the names of the published file, with its matrices turned."""
    with torch.device("meta"):
        published = transformers.GPT2LMHeadModel(transformers.GPT2Config())
        ours = Gpt2(Gpt2Sizes(vocab_size=50257, positions=1024))
    theirs = published.state_dict()
    assert sum(p.numel() for p in ours.parameters()) == 124_439_808
    names = {name.removeprefix("transformer.") for name in theirs} - {"lm_head.weight"}
    assert names == set(ours.state_dict())
    assert len(names) == 148
    for name, value in ours.state_dict().items():
        shape = theirs[f"transformer.{name}"].shape
        turned = value.ndim == 2 and not name.startswith(("wte", "wpe"))
        assert value.shape == (shape[::-1] if turned else shape), name


def test_every_tensor_is_read_from_a_published_file(reference, folder: Path) -> None:
    """The file holds what the model computes with, and a model of these sizes takes all of it."""
    from safetensors.torch import load_file

    state = load_file(folder / "model.safetensors")
    model = captioner(gpt=str(folder))
    assert len(state) == len(model.gpt.state_dict()) == 4 + 12 * 2
    for name, value in state.items():
        taken = model.gpt.state_dict()[name.removeprefix("transformer.")]
        if name.endswith("wpe.weight"):
            value = value[: PREFIX + LENGTH]
        elif value.ndim == 2 and "wte" not in name:
            value = value.T
        assert torch.equal(taken, value), name


def test_the_transformer_mapper_is_torchs_encoder() -> None:
    model = captioner(mapper="transformer")
    mapper = model.mapper
    layers = []
    for layer in mapper.layers:
        theirs = torch.nn.TransformerEncoderLayer(
            32, 4, 64, 0.0, activation="relu", batch_first=True, norm_first=True
        ).eval()
        state = {
            "self_attn.in_proj_weight": layer.qkv.weight,
            "self_attn.in_proj_bias": torch.zeros(96),
        }
        names = {"self_attn.out_proj": layer.out, "norm1": layer.norm1, "norm2": layer.norm2}
        names |= {"linear1": layer.ffn.up, "linear2": layer.ffn.down}
        for name, module in names.items():
            state |= {f"{name}.weight": module.weight, f"{name}.bias": module.bias}
        theirs.load_state_dict(state)
        layers.append(theirs)
    pooled = torch.randn(2, 20)
    with torch.no_grad():
        x = mapper.unfold(pooled).view(2, 3, 32)
        x = torch.cat([x, mapper.start.expand(2, -1, -1)], 1)
        for theirs in layers:
            x = theirs(x)
        torch.testing.assert_close(mapper(pooled), x[:, 3:], atol=1e-5, rtol=1e-4)


def test_bad_options_and_weights_are_one_line(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "activation_function": "relu"}))
    short = shutil.copytree(folder, tmp_path / "short")
    (short / "config.json").write_text(json.dumps({**config, "n_layer": 3}))
    for options, line in (
        ({"mapper": "lstm"}, "mapper is 'lstm'; give one of mlp, transformer"),
        ({"heads": 5}, "heads is 5; give a divisor of width, 32"),
        ({"prefix": 0}, "prefix is 0; give 1 or more"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"tune_gpt": False}, "GPT-2 has no weights; name them in gpt"),
        ({"gpt": str(tmp_path / "none")}, "no weights at .*none"),
        ({"gpt": str(other)}, "no GPT-2 as published: activation_function is 'relu'"),
        ({"gpt": str(short)}, r"it has no h\.2\."),
        ({"gpt": str(folder), "max_positions": 90}, r"wpe.weight is \[64, 32\], here \[94, 32\]"),
    ):
        with pytest.raises(DataError, match=line) as caught:
            captioner(**options)
        assert "\n" not in str(caught.value)
