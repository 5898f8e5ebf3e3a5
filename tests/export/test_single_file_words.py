"""Sentences as ONNX strings: the graph's text is what the bundle's tokenizer decodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402
from tokenizers import Tokenizer as Reader  # noqa: E402
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers  # noqa: E402

from edgecap.export.single_file.nodes import Nodes  # noqa: E402
from edgecap.export.single_file.words import CUT, Pieces, caption_nodes  # noqa: E402
from edgecap.runtime.engines.onnx import open_session  # noqa: E402
from edgecap.runtime.errors import BundleError  # noqa: E402
from edgecap.runtime.manifest import TokenizerSpec  # noqa: E402
from edgecap.runtime.text import Tokenizer  # noqa: E402

SENTENCES = ["a dog doesn't run on the grass .", "two men's hats , a café and a naïve cat !"] * 3
SENTENCES += ["is it a T-shirt ?", "a 犬 on the  ice", "the dogs' ball  isn't red, it's blue."]
SPECIALS = ["<pad>", "<bos>", "<eos>", "<unk>"]
LENGTH = 20
CLEAN = [" .", " ?", " !", " ,", " n't", " 's"]


def byte_level() -> Reader:
    reader = Reader(models.BPE())
    reader.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    reader.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    reader.train_from_iterator(SENTENCES, trainer)
    return reader


def cleaned() -> Reader:
    """As imported models have it: byte-level, then what transformers replaces in a sentence."""
    reader = byte_level()
    steps = [decoders.Replace(text, text[1:]) for text in CLEAN]
    reader.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Fuse(), *steps])
    return reader


def word_piece() -> Reader:
    reader = Reader(models.WordPiece(unk_token="<unk>"))
    reader.normalizer = normalizers.BertNormalizer()
    reader.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    reader.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=SPECIALS, show_progress=False)
    reader.train_from_iterator(SENTENCES, trainer)
    return reader


def words() -> Reader:
    reader = Reader(models.WordLevel(unk_token="<unk>"))
    reader.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordLevelTrainer(special_tokens=SPECIALS, show_progress=False)
    reader.train_from_iterator(SENTENCES, trainer)
    return reader


def metaspace() -> Reader:
    reader = Reader(models.Unigram())
    reader.pre_tokenizer = pre_tokenizers.Metaspace()
    reader.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, special_tokens=SPECIALS, unk_token="<unk>", show_progress=False
    )
    reader.train_from_iterator(SENTENCES, trainer)
    return reader


def pieces_of(reader: Reader) -> tuple[Pieces, Tokenizer]:
    data, size = reader.to_str().encode(), reader.get_vocab_size()
    spec = TokenizerSpec("tokenizer.json", 1, 2, 0, 3, size)
    return Pieces(data, spec), Tokenizer(data, range(4), size)


def graph(pieces: Pieces, count: int) -> Callable[[np.ndarray], list[str]]:
    """int64 [count, LENGTH] -> sentences, in ONNX Runtime."""
    g = Nodes("")
    caption_nodes(g, pieces, "tokens", count, LENGTH, "caption")
    made = helper.make_graph(
        g.nodes,
        "words",
        [helper.make_tensor_value_info("tokens", TensorProto.INT64, [count, LENGTH])],
        [helper.make_tensor_value_info("caption", TensorProto.STRING, [count])],
        g.constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    session = open_session(model.SerializeToString(), "words", 1)
    return lambda tokens: session.run(None, {"tokens": tokens})[0].tolist()


@pytest.mark.parametrize("make", [words, word_piece, metaspace, byte_level, cleaned])
def test_sentences_are_those_of_the_tokenizer(make: Callable[[], Reader]) -> None:
    pieces, tokenizer = pieces_of(make())
    whole = [v for v, text in enumerate(pieces.rest) if CUT not in text]
    assert len(whole) > 30
    rng = np.random.default_rng(1)
    run = graph(pieces, 200)
    for _ in range(3):
        tokens = rng.choice(whole, (200, LENGTH))
        # Sentences of every length, the rest of their row padding.
        tokens[np.arange(LENGTH) >= rng.integers(0, LENGTH + 1, 200)[:, None]] = 0
        expected = [tokenizer.decode(row.tolist()) for row in tokens]
        assert run(tokens) == expected
        assert len(set(expected)) > 150


@pytest.mark.parametrize("make", [words, word_piece, metaspace, byte_level, cleaned])
def test_real_sentences_come_back(make: Callable[[], Reader]) -> None:
    reader = make()
    pieces, tokenizer = pieces_of(reader)
    run = graph(pieces, 1)
    for text in ("a dog doesn't run .", "the cat isn't on the ball ,"):
        ids = reader.encode(text, add_special_tokens=False).ids
        row = np.zeros((1, LENGTH), np.int64)
        row[0, : len(ids)] = ids
        assert run(row) == [tokenizer.decode(ids)]
    if make is cleaned:
        assert run(row) == ["the cat isn't on the ball,"]


def test_a_character_over_several_tokens_is_shown_as_unknown() -> None:
    reader = byte_level()
    pieces, tokenizer = pieces_of(reader)
    ids = reader.encode("a 猫", add_special_tokens=False).ids
    cut = [v for v in ids if CUT in pieces.rest[v]]
    assert len(cut) > 1, "the character is one token here: choose a rarer one"
    row = np.zeros((1, LENGTH), np.int64)
    row[0, : len(ids)] = ids
    assert tokenizer.decode(ids) == "a 猫"
    assert graph(pieces, 1)(row) == ["a " + CUT * len(cut)]


def test_a_decoder_that_looks_at_neighbours_is_refused() -> None:
    reader = words()
    table = json.loads(reader.to_str())
    table["decoder"] = {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|",
                        "cleanup": True}  # fmt: skip
    with pytest.raises(BundleError, match="in a way that ONNX strings cannot"):
        pieces_of(Reader.from_str(json.dumps(table)))


def test_a_vocabulary_without_letters_is_refused(tmp_path: Path) -> None:
    reader = Reader(models.WordLevel({"<pad>": 0, "<bos>": 1, "<eos>": 2, "<unk>": 3, "7": 4}))
    with pytest.raises(BundleError, match="no word of letters"):
        pieces_of(reader)
