"""The normal form of captions and the tokenizer of a bundle."""

from __future__ import annotations

import unicodedata

import pytest
import tiny_models as tiny
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import BundleError
from edgecap.runtime.text import Tokenizer, normalise_caption


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog runs through the grass .", "a dog runs through the grass"),
        ("  Two\tdogs,\n play -- outside! ", "two dogs play outside"),
        ('A man\'s T-shirt (red) says "NO"', "a man's t-shirt red says no"),
        ("the boys' ball", "the boys ball"),
        ("a man’s hat", "a man's hat"),  # noqa: RUF001
        ("ﬁsh & chips", "fish chips"),
        ("snake_case", "snake case"),
        ("Café ＡＢＣ", "café abc"),  # noqa: RUF001
        ("cafe\u0301", "café"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("a #1 dog @ 3.5 %", "a 1 dog 3 5"),
        ("", ""),
        ("!?", ""),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise_caption(text) == expected


@given(st.text())
def test_normal_form_is_stable_and_clean(text: str) -> None:
    once = normalise_caption(text)
    assert normalise_caption(once) == once
    assert once == " ".join(once.split())
    assert all(unicodedata.category(c)[0] in "LMN" or c in " '-" for c in once)


def tokenizer() -> Tokenizer:
    special = (tiny.PAD, tiny.BOS, tiny.EOS, tiny.UNK)
    return Tokenizer(tiny.tokenizer_json(), special, tiny.VOCAB)


@given(st.lists(st.sampled_from(tiny.WORDS[4:]), max_size=12))
def test_sentences_survive_the_round_trip(words: list[str]) -> None:
    ids = tokenizer().encode(" ".join(words))
    assert ids == [tiny.WORDS.index(word) for word in words]
    assert tokenizer().decode(ids) == " ".join(words)


@given(st.lists(st.integers(0, tiny.VOCAB - 1), max_size=12))
def test_specials_are_never_part_of_a_sentence(ids: list[int]) -> None:
    expected = " ".join(tiny.WORDS[i] for i in ids if i > tiny.UNK)
    assert tokenizer().decode(ids) == expected


def test_unknown_words_become_unk() -> None:
    assert tokenizer().encode("a zebra runs") == [4, tiny.UNK, 10]


def test_subwords_are_joined_by_the_decoder_of_their_own_file() -> None:
    from tokenizers import Tokenizer as Reader
    from tokenizers import decoders, models, pre_tokenizers, trainers

    reader = Reader(models.BPE())
    reader.pre_tokenizer = pre_tokenizers.ByteLevel()
    reader.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet, show_progress=False
    )
    reader.train_from_iterator(["a dog runs through the grass"] * 3, trainer)
    bpe = Tokenizer(reader.to_str().encode(), [0])
    ids = bpe.encode("a frog runs")
    assert len(ids) > 3
    assert bpe.decode([0, *ids, 0]) == "a frog runs"


def test_files_that_are_wrong() -> None:
    with pytest.raises(BundleError, match="tokenizer file cannot be read") as caught:
        Tokenizer(b"{}")
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="has 22 tokens, the manifest says 5"):
        Tokenizer(tiny.tokenizer_json(), vocab_size=5)
