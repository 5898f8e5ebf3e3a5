from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import DataError
from edgecap.training.metrics import Cider, DocumentFrequency
from edgecap.training.metrics.cider_d import CiderD, TokenDocumentFrequency, pad

Coded = tuple[list[list[int]], list[list[list[int]]]]
captions = st.lists(st.integers(-2, 3), max_size=8)


@pytest.fixture(scope="module")
def coded(people) -> Coded:
    """Candidates and references of 1,000 photographs as token ids."""
    candidates, references = people
    numbers: dict[str, int] = {}

    def encode(tokens: list[str]) -> list[int]:
        return [numbers.setdefault(token, len(numbers)) for token in tokens]

    return (
        [encode(tokens) for tokens in candidates.values()],
        [[encode(tokens) for tokens in refs] for refs in references.values()],
    )


def test_image_and_corpus_scores_equal_coco_caption(people, coded, coco_score) -> None:
    candidates, references = people
    corpus, images = coco_score("cider.cider", "Cider", candidates, references)
    tokens, lengths = pad(coded[0])
    ours = CiderD(coded[1]).score(np.arange(len(tokens)), tokens, lengths)
    assert ours == pytest.approx(np.array(images), abs=1e-9)
    assert ours.mean() == pytest.approx(corpus, abs=1e-9)


@given(st.lists(st.tuples(captions, captions, captions), min_size=1, max_size=6))
def test_short_empty_and_repeated_captions_equal_coco_caption(coco_score, sets) -> None:
    words = {str(i): [[f"w{t}" for t in text] for text in texts] for i, texts in enumerate(sets)}
    # coco-caption cannot score a corpus without any word.
    references = {i: [["w0"], *texts[1:]] for i, texts in words.items()}
    _, images = coco_score(
        "cider.cider", "Cider", {i: texts[0] for i, texts in words.items()}, references
    )
    scorer = CiderD([[[0], *texts[1:]] for texts in sets])
    ours = scorer.score(np.arange(len(sets)), *pad([texts[0] for texts in sets]))
    assert ours == pytest.approx(np.array(images), abs=1e-9)


def test_any_rows_of_any_images_score_as_the_python_form(coded) -> None:
    candidates, references = coded
    by_hand = Cider(DocumentFrequency.of(references))
    tokens, lengths = pad(candidates)
    rng = np.random.default_rng(5)
    rows, images = rng.integers(0, len(tokens), 300), rng.integers(0, len(tokens), 300)
    images[:20] = rows[:20]
    ours = CiderD(references).score(images, tokens[rows].astype(np.int32), lengths[rows])
    theirs = [
        by_hand.score(candidates[r], references[i]) for r, i in zip(rows, images, strict=True)
    ]
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert ours[:20].min() > 0


def test_frequencies_of_other_references(coded, tmp_path: Path) -> None:
    """As published scorers do with a saved table: its counts and its number of images."""
    candidates, references = coded
    file = tmp_path / "frequency.npz"
    TokenDocumentFrequency.of(references[:600]).save(file)
    assert [path.name for path in tmp_path.iterdir()] == ["frequency.npz"]
    frequency = TokenDocumentFrequency.load(file)
    assert frequency.images == 600
    scorer = CiderD(references[600:], frequency)
    ours = scorer.score(np.arange(400), *pad(candidates[600:]))
    by_hand = Cider(DocumentFrequency.of(references[:600]))
    theirs = [by_hand.score(c, r) for c, r in zip(candidates[600:], references[600:], strict=True)]
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert ours.mean() != pytest.approx(
        CiderD(references[600:]).score(np.arange(400), *pad(candidates[600:])).mean(), abs=1e-3
    )


def test_hashes_are_the_same_on_every_machine_and_for_ever() -> None:
    """Another hash would silently make every n-gram of a saved file an unknown one."""

    def mix(x: int) -> int:  # the finaliser of splitmix64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    def hash_of(*tokens: int) -> int:
        value = 0
        for token in tokens:
            value = mix((value + 0x9E3779B97F4A7C15 + mix(token % 2**64)) % 2**64)
        return value

    frequency = TokenDocumentFrequency.of([[[7, -2], [7]], [[7]]])
    found = dict(zip(frequency.hashes.tolist(), frequency.counts.tolist(), strict=True))
    assert found == {hash_of(7): 2, hash_of(-2): 1, hash_of(7, -2): 1}


def test_end_of_sequence_is_a_word_when_it_is_given_as_one(coded) -> None:
    candidates, references = coded
    with_end = CiderD([[[*r, -1] for r in refs] for refs in references])
    cut = [[*c, -1] if i % 2 else c for i, c in enumerate(candidates)]
    ours = with_end.score(np.arange(len(cut)), *pad(cut))
    by_hand = Cider(DocumentFrequency.of([[[*r, "</s>"] for r in refs] for refs in references]))
    for i in range(20):
        words = [*candidates[i], "</s>"] if i % 2 else candidates[i]
        wanted = by_hand.score(words, [[*r, "</s>"] for r in references[i]])
        assert ours[i] == pytest.approx(wanted, abs=1e-9)


def test_padding_is_never_read() -> None:
    scorer = CiderD([[[1, 2, 3]], [[4, 5]]])
    a = scorer.score([0, 1], [[1, 2, 3, 9], [4, 5, 0, 0]], [3, 2])
    b = scorer.score([0, 1], [[1, 2, 3, 0], [4, 5, 4, 5]], [3, 2])
    np.testing.assert_array_equal(a, b)
    assert scorer.score([], np.zeros((0, 5), int)).shape == (0,)
    assert scorer.score([0], np.zeros((1, 0), int)).tolist() == [0.0]


@pytest.mark.parametrize(
    ("images", "tokens", "lengths", "message"),
    [
        ([1], [[1]], [1], "images 0 to 0"),
        ([-1], [[1]], [1], "image -1"),
        ([0], [[1]], [2], "length 2"),
        ([0], [[1]], [-1], "length -1"),
        ([0, 0], [[1]], [1], r"\[N\] and \[N, L\]"),
        ([0], [1], [1], r"\[N\] and \[N, L\]"),
        ([0], [[1]], [1, 1], "differ in rows"),
        ([0], [[1]], [[1]], "."),
        ([0], [[1.5]], [1], "integers"),
        ([0.0], [[1]], [1], "integers"),
        ([2**62], [[1]], [1], "image 46"),
    ],
)
def test_bad_rows_are_said_in_one_line(images, tokens, lengths, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        CiderD([[[1, 2]]]).score(images, tokens, lengths)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("references", [[], [[]], [[[1]], []], [[["a"]]], [[[0.5]]]])
def test_bad_references_are_an_error(references) -> None:
    with pytest.raises(DataError):
        CiderD(references)


def test_bad_files_and_counts_are_an_error(tmp_path: Path) -> None:
    hashes = np.array([5], np.uint64)
    with pytest.raises(DataError, match="number of images"):
        TokenDocumentFrequency(hashes, np.array([3], np.int64), 2)
    text, other = tmp_path / "a.npz", tmp_path / "b.npz"
    text.write_text("{}")
    np.savez(other, x=1)
    for path in (text, other, tmp_path / "none.npz", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            TokenDocumentFrequency.load(path)
    with pytest.raises(DataError, match="cannot write"):
        TokenDocumentFrequency(hashes, np.array([1], np.int64), 2).save(tmp_path / "no" / "x.npz")
