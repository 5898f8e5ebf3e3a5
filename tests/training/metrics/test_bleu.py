from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgecap.training.metrics.bleu import bleu_counts, bleu_from_counts
from edgecap.training.metrics.ptb import tokenize


def test_counts_of_973_images_equal_those_printed_by_coco_caption(oracle: Path) -> None:
    hypotheses, references, expected = (
        json.loads((oracle / "coco_val2014_973" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("hypotheses", "references", "expected")
    )
    counts = sum(
        bleu_counts(tokenize(hypotheses[i]), [tokenize(r) for r in references[i]])
        for i in hypotheses
    )
    wanted = expected["bleu_counts"]
    assert counts.tolist() == [
        wanted["testlen"],
        wanted["reflen"],
        *wanted["guess"],
        *wanted["correct"],
    ]
    for n, score in enumerate(bleu_from_counts(counts.astype(float)), start=1):
        assert score == pytest.approx(expected["scores"][f"Bleu_{n}"], abs=5e-4)


def test_corpus_and_image_scores_equal_coco_caption(people, coco_score) -> None:
    candidates, references = people
    corpus, images = coco_score("bleu.bleu", "Bleu", candidates, references)
    counts = np.array([bleu_counts(candidates[i], references[i]) for i in candidates], float)
    assert bleu_from_counts(counts.sum(axis=0)) == pytest.approx(np.array(corpus), abs=1e-9)
    assert bleu_from_counts(counts) == pytest.approx(np.array(images).T, abs=1e-9)


def test_short_and_empty_captions_equal_coco_caption(coco_score) -> None:
    words = list("abcde")
    candidates = {str(n): words[:n] for n in range(6)}
    references = {str(n): [words, ["a"], []] for n in range(6)}
    corpus, images = coco_score("bleu.bleu", "Bleu", candidates, references)
    counts = np.array([bleu_counts(candidates[i], references[i]) for i in candidates], float)
    assert bleu_from_counts(counts.sum(axis=0)) == pytest.approx(np.array(corpus), abs=1e-9)
    assert bleu_from_counts(counts) == pytest.approx(np.array(images).T, abs=1e-9)


def test_reference_length_is_the_nearest_and_the_shorter_on_a_tie() -> None:
    assert bleu_counts(["x"] * 4, [["x"] * 6, ["x"] * 2, ["x"] * 9])[1] == 2
