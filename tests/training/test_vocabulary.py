"""A published tokenizer behind our special tokens says what it said, four ids higher."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from hypothesis import given
from hypothesis import strategies as st
from small_captioners import byte_level, word_piece

from edgecap.runtime.errors import DataError
from edgecap.runtime.text import Tokenizer
from edgecap.training.validate import broken_tokens
from edgecap.training.vocabulary import SPECIALS, behind_specials, build_word_tokenizer

PUBLISHED = byte_level()
OURS = behind_specials(PUBLISHED.to_str())


@given(st.text(max_size=40))
def test_ids_are_four_higher_and_the_text_comes_back(text: str) -> None:
    theirs = PUBLISHED.encode(text, add_special_tokens=False).ids
    found = OURS.encode(text, add_special_tokens=False).ids
    if not any(token in text for token in SPECIALS):
        assert found == [i + 4 for i in theirs]
    read = Tokenizer(OURS.to_str().encode(), special=(0, 1, 2, 3))
    assert read.decode(found) == " ".join(OURS.decode(found).split())


def test_specials_come_first_and_survive_the_file() -> None:
    again = behind_specials(OURS.to_str())
    assert [again.token_to_id(token) for token in SPECIALS] == [0, 1, 2, 3]
    assert again.get_vocab_size() == PUBLISHED.get_vocab_size() + 4
    assert again.token_to_id("<|endoftext|>") == PUBLISHED.token_to_id("<|endoftext|>") + 4
    assert json.loads(again.to_str()) == json.loads(OURS.to_str())


def test_a_tokenizer_of_ours_is_left_as_it_is() -> None:
    words = build_word_tokenizer(["a dog runs"], 1)
    assert json.loads(behind_specials(words.to_str()).to_str()) == json.loads(words.to_str())


def test_words_that_break_off_are_found_in_both_forms() -> None:
    tokens = {OURS.id_to_token(token) for token in broken_tokens(OURS.to_str())}
    assert tokens & {"a", "\u0120a"}
    assert all(token.lstrip("\u0120").isalpha() for token in tokens)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "no tokenizer file"), (word_piece().to_str(), "give a BPE")]
)
def test_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        behind_specials(text)


def test_clip_gpt_trains_on_gpt2s_own_tokens(tmp_path: Path) -> None:
    """From a folder as published: rows of its words are where the tokenizer puts them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import small_encoder  # noqa: F401
    from small_project import write_smaller_project

    from edgecap.training.checkpoint import load_model
    from edgecap.training.recipe import read_recipe
    from edgecap.training.run import train

    folder = tmp_path / "gpt2"
    config = transformers.GPT2Config(
        vocab_size=PUBLISHED.get_vocab_size(), n_positions=64, n_embd=32, n_layer=1, n_head=2
    )
    torch.manual_seed(0)
    published = transformers.GPT2LMHeadModel(config)
    published.save_pretrained(folder)
    PUBLISHED.save(str(folder / "tokenizer.json"))
    recipe = read_recipe(
        str(write_smaller_project(tmp_path)),
        str(tmp_path),
        "",
        values=[
            "family=clip-gpt",
            f"tokenizer={folder}",
            f"model={{gpt: {folder}, prefix: 2, max_positions: 20, tune_gpt: false}}",
            "options.epochs=1",
        ],
    )
    train(recipe, tmp_path / "run", tmp_path / "cache", 1)
    model, tokenizer_json, _ = load_model(tmp_path / "run" / "best")
    assert json.loads(tokenizer_json) == json.loads(OURS.to_str())
    torch.testing.assert_close(model.gpt.wte.weight[4:], published.transformer.wte.weight)
