from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.errors import DataError
from edgecap.training.metrics import bootstrap, evaluate

KEYS = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_973_machine_captions_score_as_coco_caption_printed(oracle: Path) -> None:
    folder = oracle / "coco_val2014_973"
    hypotheses = load(folder / "hypotheses.json")
    scores = evaluate(hypotheses, load(folder / "references.json"))
    assert list(scores.corpus) == KEYS
    for name, wanted in load(folder / "expected.json")["scores"].items():
        ours = name.replace("Bleu_", "BLEU-").replace("ROUGE_L", "ROUGE-L")
        if ours in scores.corpus:
            assert scores.corpus[ours] == pytest.approx(wanted, abs=5.01e-4), name


@pytest.mark.parametrize("file", ["good_captions.json", "bad_captions.json"])
def test_clipscore_example(oracle: Path, file: str) -> None:
    folder = oracle / "clipscore_example"
    scores = evaluate(load(folder / file), load(folder / "refs.json")).corpus
    wanted = load(folder / "expected.json")[file]
    wanted = {**wanted, "ROUGE-L": wanted["ROUGE"], "CIDEr": wanted["CIDER"]}
    for name in KEYS:
        assert scores[name] == pytest.approx(wanted[name], abs=5.01e-5), name


@pytest.mark.parametrize("case", range(3))
def test_nlg_eval_examples(oracle: Path, case: int) -> None:
    data = load(oracle / "nlg_eval_examples.json")
    example = data["cases"][case]
    candidates = {str(i): text for i, text in enumerate(example["hypotheses"])}
    references = {str(i): texts for i, texts in enumerate(example["references"])}
    scores = evaluate(candidates, references, tokenizer=str.split).corpus
    names = [f"Bleu_{n}" for n in range(1, 5)] + ["ROUGE_L", "CIDEr"]
    for ours, theirs in zip(KEYS, names, strict=True):
        wanted = example["expected"][theirs]
        assert scores[ours] == pytest.approx(wanted, abs=data["tolerance"]), theirs


def test_aac_metrics_example(oracle: Path) -> None:
    data = load(oracle / "aac_metrics_readme.json")
    candidates = {str(i): text for i, text in enumerate(data["hypotheses"])}
    references = {str(i): texts for i, texts in enumerate(data["references"])}
    scores = evaluate(candidates, references)
    assert scores.corpus["BLEU-1"] == pytest.approx(data["expected_corpus"]["bleu_1"], abs=1e-4)
    assert scores.corpus["CIDEr"] == pytest.approx(data["expected_corpus"]["cider_d"], abs=1e-4)
    assert list(scores.per_image["CIDEr"].values()) == pytest.approx(
        data["expected_per_sentence"]["cider_d"], abs=1e-4
    )


def test_raw_captions_of_people_score_as_coco_caption_with_its_own_tokeniser(
    human, java_tokenize, coco_score
) -> None:
    images = list(human["coco_captions"].items()) + list(human["flickr8k"].items())[:700]
    candidates = {image: texts[0] for image, texts in images}
    references = {image: texts[1:] for image, texts in images}
    flat = [text for _, texts in images for text in texts]
    theirs = dict(zip(flat, java_tokenize(flat), strict=True))
    candidate_tokens = {image: theirs[text] for image, text in candidates.items()}
    reference_tokens = {image: [theirs[t] for t in texts] for image, texts in references.items()}
    ours = evaluate(candidates, references)
    for module, name, keys in (
        ("bleu.bleu", "Bleu", KEYS[:4]),
        ("rouge.rouge", "Rouge", KEYS[4:5]),
        ("cider.cider", "Cider", KEYS[5:]),
    ):
        corpus, per_image = coco_score(module, name, candidate_tokens, reference_tokens)
        for key, score, row in zip(
            keys, np.atleast_1d(corpus), np.atleast_2d(per_image), strict=True
        ):
            assert ours.corpus[key] == pytest.approx(score, abs=1e-9), key
            assert list(ours.per_image[key].values()) == pytest.approx(list(row), abs=1e-9), key


def test_the_order_of_images_does_not_matter(human) -> None:
    images = list(human["coco_captions"].items())[:50]
    forward = evaluate({i: t[0] for i, t in images}, {i: t[1:] for i, t in images})
    backward = evaluate({i: t[0] for i, t in images[::-1]}, {i: t[1:] for i, t in images})
    for key in KEYS:
        assert backward.corpus[key] == pytest.approx(forward.corpus[key], abs=1e-12)
        assert backward.per_image[key] == forward.per_image[key]


def test_bootstrap_is_repeatable_and_brackets_the_score(human) -> None:
    images = list(human["coco_captions"].items())
    scores = evaluate({i: t[0] for i, t in images}, {i: t[1:] for i, t in images})
    intervals = bootstrap(scores, seed=3)
    assert list(intervals) == KEYS
    assert intervals == bootstrap(scores, seed=3)
    assert intervals != bootstrap(scores, seed=4)
    for key, interval in intervals.items():
        assert interval.low < scores.corpus[key] < interval.high
    # The mean of n scores has a normal interval of 1.96 standard errors.
    cider = np.array(list(scores.per_image["CIDEr"].values()))
    half = 1.96 * cider.std() / np.sqrt(len(cider))
    found = intervals["CIDEr"]
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    narrow = bootstrap(scores, confidence=0.5, seed=3)["CIDEr"]
    assert found.low < narrow.low < narrow.high < found.high


def test_bootstrap_resamples_bleu_counts_and_not_image_scores() -> None:
    references = {"a": ["one two three four five"], "b": ["six seven eight nine ten"]}
    scores = evaluate({"a": "one two three four five", "b": "x y z u v"}, references)
    interval = bootstrap(scores, samples=200)["BLEU-4"]
    assert interval.low == pytest.approx(0.0, abs=1e-3)
    assert interval.high == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("candidates", "references", "metrics", "message"),
    [
        ({}, {}, ["CIDEr"], "at least one image"),
        ({"a": "x"}, {}, ["CIDEr"], "'a'"),
        ({"a": "x"}, {"a": []}, ["CIDEr"], "'a'"),
        ({"a": "x"}, {"a": ["x"], "b": ["y"]}, ["CIDEr"], "'b'"),
        ({"a": "x"}, {"a": ["x"]}, ["CIDER"], "BLEU, ROUGE-L, CIDEr"),
    ],
)
def test_bad_input_is_said_in_one_line(candidates, references, metrics, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluate(candidates, references, metrics)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arguments", [{"samples": 0}, {"confidence": 1.0}, {"confidence": 95}])
def test_bad_bootstrap_arguments(arguments) -> None:
    with pytest.raises(DataError, match="confidence"):
        bootstrap(evaluate({"a": "x"}, {"a": ["x"]}), **arguments)


def test_metrics_and_data_load_without_torch() -> None:
    code = (
        "import sys, edgecap.training.data, edgecap.training.metrics as m\n"
        "m.evaluate({'a': 'x'}, {'a': ['x']})\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
