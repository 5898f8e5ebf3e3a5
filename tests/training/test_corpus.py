"""What the model learns from: vocabulary, token rows, parts of a list."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecap.training.corpus import SplitSpec, build_corpus, read_images, training_captions
from edgecap.training.data import CaptionedImage
from edgecap.training.vocabulary import BOS, EOS, PAD, UNK, build_word_tokenizer


def image(name: str, *captions: str) -> CaptionedImage:
    return CaptionedImage(name, Path(name), captions)


def test_vocabulary_is_ordered_by_frequency_and_drops_rare_words() -> None:
    tokenizer = build_word_tokenizer(["A dog runs .", "a dog!", "A cat"], 2)
    vocab = tokenizer.get_vocab()
    assert vocab["a"] == 4
    assert vocab["dog"] == 5
    assert "cat" not in vocab
    assert tokenizer.encode("a cat").ids == [4, UNK]


def test_rows_hold_bos_words_eos_and_padding() -> None:
    images = [image("1.jpg", "A dog runs fast .", "The dog is here now")]
    tokenizer = build_word_tokenizer(images[0].captions, 1)
    rows = build_corpus(images, tokenizer, 3, 8).tokens
    assert rows.shape == (1, 3, 9)
    first = rows[0, 0].tolist()
    assert first[0] == BOS
    assert first[5] == EOS
    assert first[6:] == [PAD] * 3
    assert tokenizer.decode(first[1:5]) == "a dog runs fast"
    assert rows[0, 2].tolist() == first  # a picture with too few captions repeats its own


def test_a_long_caption_is_cut_without_an_ending() -> None:
    long = " ".join(f"w{i}" for i in range(30))
    tokenizer = build_word_tokenizer([long], 1)
    row = build_corpus([image("1.jpg", long)], tokenizer, 1, 8).tokens[0, 0]
    assert EOS not in row
    assert PAD not in row


def test_damaged_captions_are_left_out_unless_nothing_else_is_there() -> None:
    assert training_captions(image("1", "A", "A man walks away ."))[0] == "a man walks away"
    assert training_captions(image("1", "A")) == ["a"]


def test_a_teachers_caption_is_one_more_row_and_left_out_pictures_are_not_used() -> None:
    images = [image("1", "a dog runs"), image("2", "a cat sits"), image("3", "a bird sings")]
    tokenizer = build_word_tokenizer([text for i in images for text in i.captions], 1)
    extra = ["A dog sits.", "", "a bird"]
    corpus = build_corpus(images, tokenizer, 1, 4, extra=extra, left_out=[1])
    rows = corpus.tokens
    assert rows.shape == (3, 2, 5)
    assert tokenizer.decode(rows[0, 1].tolist()) == "a dog sits"
    assert rows[1, 1].tolist() == rows[1, 0].tolist()
    assert corpus.used.tolist() == [0, 2]
    assert corpus.words.tolist() == [8, 8, 7]  # EOS counted


def test_a_tokenizer_that_adds_specials_adds_none_to_rows() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = build_word_tokenizer(["a dog runs"], 1)
    tokenizer.post_processor = TemplateProcessing(
        "<bos> $A <eos>", None, [("<bos>", 1), ("<eos>", 2)]
    )
    row = build_corpus([image("1", "a dog runs")], tokenizer, 1, 5).tokens[0, 0]
    assert row.tolist().count(BOS) == row.tolist().count(EOS) == 1


def test_kept_and_held_parts_share_nothing_and_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    names = [f"{i}.jpg" for i in range(20)]
    for name in names:
        (tmp_path / "images" / name).write_bytes(b"x")
    (tmp_path / "train.txt").write_text("\n".join(names))
    lines = ["image,caption_index,caption", *(f"{name},0,a b c d" for name in names)]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    data = f"flickr8k:{tmp_path}"
    kept = [i.id for i in read_images([SplitSpec(data, "train", 6, "kept")])]
    held = [i.id for i in read_images([SplitSpec(data, "train", 6, "held")])]
    assert held == ["0.jpg", "6.jpg", "12.jpg", "18.jpg"]
    assert sorted(kept + held) == sorted(names)


@pytest.mark.parametrize("spec", [{"part": "half"}, {"part": "held"}, {"part": "kept", "every": 1}])
def test_a_part_that_makes_no_sense_is_refused(spec: dict) -> None:
    with pytest.raises(ValueError, match="give 'all'"):
        SplitSpec("flickr8k:x", "train", **spec)
