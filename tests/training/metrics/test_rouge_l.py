from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.training.metrics.rouge_l import rouge_l

captions = st.lists(st.sampled_from("abcd"), max_size=8)


def test_image_and_corpus_scores_equal_coco_caption(people, coco_score) -> None:
    candidates, references = people
    corpus, images = coco_score("rouge.rouge", "Rouge", candidates, references)
    ours = [rouge_l(candidates[i], references[i]) for i in candidates]
    assert ours == pytest.approx(list(images), abs=1e-12)
    assert sum(ours) / len(ours) == pytest.approx(corpus, abs=1e-12)


@given(st.dictionaries(st.text("xyz", min_size=1), st.tuples(captions, captions, captions)))
def test_short_and_empty_captions_equal_coco_caption(coco_score, sets) -> None:
    if not sets:
        return
    candidates = {key: value[0] for key, value in sets.items()}
    references = {key: list(value[1:]) for key, value in sets.items()}
    _, images = coco_score("rouge.rouge", "Rouge", candidates, references)
    ours = [rouge_l(candidates[i], references[i]) for i in candidates]
    assert ours == pytest.approx(list(images), abs=1e-12)
