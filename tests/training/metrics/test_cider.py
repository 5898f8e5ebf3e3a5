from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.runtime.errors import DataError
from edgecap.training.metrics import Cider, DocumentFrequency

captions = st.lists(st.sampled_from("abcd"), max_size=8)


def test_image_and_corpus_scores_equal_coco_caption(people, coco_score) -> None:
    candidates, references = people
    corpus, images = coco_score("cider.cider", "Cider", candidates, references)
    cider = Cider(DocumentFrequency.of(references.values()))
    ours = [cider.score(candidates[i], references[i]) for i in candidates]
    assert ours == pytest.approx(list(images), abs=1e-9)
    assert np.mean(ours) == pytest.approx(corpus, abs=1e-9)


@given(
    st.dictionaries(st.text("xyz", min_size=1), st.tuples(captions, captions, captions), min_size=1)
)
def test_short_empty_and_repeated_captions_equal_coco_caption(coco_score, sets) -> None:
    candidates = {key: value[0] for key, value in sets.items()}
    references = {key: [["a"], *value[1:]] for key, value in sets.items()}
    _, images = coco_score("cider.cider", "Cider", candidates, references)
    cider = Cider(DocumentFrequency.of(references.values()))
    ours = [cider.score(candidates[i], references[i]) for i in candidates]
    assert ours == pytest.approx(list(images), abs=1e-9)


def test_ids_score_as_the_words_they_stand_for(people) -> None:
    candidates, references = people
    texts = [*candidates.values(), *(text for refs in references.values() for text in refs)]
    ids = {word: number for number, word in enumerate(sorted({w for t in texts for w in t}))}

    def encode(tokens: list[str]) -> list[int]:
        return [ids[token] for token in tokens]

    by_word = Cider(DocumentFrequency.of(references.values()))
    coded = {i: [encode(r) for r in refs] for i, refs in references.items()}
    by_id = Cider(DocumentFrequency.of(coded.values()))
    for image in list(candidates)[:100]:
        prepared = by_id.prepare(coded[image])
        assert by_id.score(encode(candidates[image]), prepared) == pytest.approx(
            by_word.score(candidates[image], references[image]), abs=1e-12
        )


def test_a_reference_as_candidate_scores_ten_without_others(people) -> None:
    _, references = people
    cider = Cider(DocumentFrequency.of(references.values()))
    caption = next(iter(references.values()))[0]
    assert cider.score(caption, [caption]) == pytest.approx(10.0)


def test_nothing_to_compare_with_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one image"):
        DocumentFrequency.of([])
    with pytest.raises(DataError, match="at least one"):
        Cider(DocumentFrequency({}, 3)).score(["a"], [])
