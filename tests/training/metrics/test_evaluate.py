from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics import bootstrap, evaluate, tokenize

KEYS = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"]
# All of them but SPICE, which has its own tests.
METRICS = ("BLEU", "METEOR", "ROUGE-L", "CIDEr", "CIDEr-D")
ALL_KEYS = [*KEYS[:4], "METEOR", *KEYS[4:], "CIDEr-D"]


@pytest.fixture(scope="module")
def meteor_files() -> None:
    if not all(importlib.util.find_spec(name) for name in ("pycocoevalcap", "snowballstemmer")):
        pytest.skip("the files of METEOR are not installed")


def load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.usefixtures("meteor_files")
def test_973_machine_captions_score_as_coco_caption_printed(oracle: Path) -> None:
    folder = oracle / "coco_val2014_973"
    hypotheses = load(folder / "hypotheses.json")
    scores = evaluate(hypotheses, load(folder / "references.json"), METRICS)
    assert list(scores.corpus) == ALL_KEYS
    assert scores.corpus["CIDEr-D"] == pytest.approx(scores.corpus["CIDEr"], abs=1e-9)
    for name, wanted in load(folder / "expected.json")["scores"].items():
        ours = name.replace("Bleu_", "BLEU-").replace("ROUGE_L", "ROUGE-L")
        if ours in scores.corpus:
            assert scores.corpus[ours] == pytest.approx(wanted, abs=5.01e-4), name


@pytest.mark.usefixtures("meteor_files")
@pytest.mark.parametrize("file", ["good_captions.json", "bad_captions.json"])
def test_clipscore_example(oracle: Path, file: str) -> None:
    folder = oracle / "clipscore_example"
    scores = evaluate(load(folder / file), load(folder / "refs.json"), METRICS).corpus
    wanted = load(folder / "expected.json")[file]
    wanted |= {"ROUGE-L": wanted["ROUGE"], "CIDEr": wanted["CIDER"], "CIDEr-D": wanted["CIDER"]}
    for name in ALL_KEYS:
        assert scores[name] == pytest.approx(wanted[name], abs=5.01e-5), name


@pytest.mark.usefixtures("meteor_files")
@pytest.mark.parametrize("case", range(3))
def test_nlg_eval_examples(oracle: Path, case: int) -> None:
    data = load(oracle / "nlg_eval_examples.json")
    example = data["cases"][case]
    candidates = {str(i): text for i, text in enumerate(example["hypotheses"])}
    references = {str(i): texts for i, texts in enumerate(example["references"])}
    scores = evaluate(candidates, references, METRICS, tokenizer=str.split).corpus
    names = [f"Bleu_{n}" for n in range(1, 5)] + ["METEOR", "ROUGE_L", "CIDEr", "CIDEr"]
    for ours, theirs in zip(ALL_KEYS, names, strict=True):
        wanted = example["expected"][theirs]
        assert scores[ours] == pytest.approx(wanted, abs=data["tolerance"]), theirs


def test_aac_metrics_example(oracle: Path) -> None:
    data = load(oracle / "aac_metrics_readme.json")
    candidates = {str(i): text for i, text in enumerate(data["hypotheses"])}
    references = {str(i): texts for i, texts in enumerate(data["references"])}
    scores = evaluate(candidates, references, ["BLEU", "CIDEr", "CIDEr-D"])
    assert scores.corpus["BLEU-1"] == pytest.approx(data["expected_corpus"]["bleu_1"], abs=1e-4)
    for name in ("CIDEr", "CIDEr-D"):
        assert scores.corpus[name] == pytest.approx(data["expected_corpus"]["cider_d"], abs=1e-4)
        assert list(scores.per_image[name].values()) == pytest.approx(
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


@pytest.mark.parametrize("name", ["flickr8k val", "coco_val2014_973"])
def test_whole_sets_score_as_coco_caption(name: str, shared: Path, human, coco_score) -> None:
    """Of Flickr8k one of the five captions of each of 1,000 images against the other four."""
    if name == "flickr8k val":
        images = (shared / "data/flickr8k/val.txt").read_text().split()
        candidates = {i: human["flickr8k"][i][0] for i in images}
        references = {i: human["flickr8k"][i][1:] for i in images}
    else:
        candidates = load(shared / "data/metrics_oracle/coco_val2014_973/hypotheses.json")
        references = {i: human["oracle"][i] for i in candidates}
    ours = evaluate(candidates, references, ["BLEU", "ROUGE-L", "CIDEr", "CIDEr-D"])
    tokens = {i: tokenize(text) for i, text in candidates.items()}
    people = {i: [tokenize(text) for text in texts] for i, texts in references.items()}
    for module, name, keys in (
        ("bleu.bleu", "Bleu", KEYS[:4]),
        ("rouge.rouge", "Rouge", ["ROUGE-L"]),
        ("cider.cider", "Cider", ["CIDEr"]),
        ("cider.cider", "Cider", ["CIDEr-D"]),
    ):
        corpus, per_image = coco_score(module, name, tokens, people)
        for key, score, row in zip(
            keys, np.atleast_1d(corpus), np.atleast_2d(per_image), strict=True
        ):
            assert ours.corpus[key] == pytest.approx(score, abs=1e-9), key
            assert list(ours.per_image[key].values()) == pytest.approx(list(row), abs=1e-9), key


@pytest.mark.usefixtures("meteor_files")
def test_empty_captions_and_other_alphabets_are_scored() -> None:
    candidates = {"a": "", "b": "\u4e00\u53ea\u72d7 \u8dd1", "c": "le chien court", "d": ". ,"}
    references = {
        "a": ["a dog", ""],
        "b": ["\u4e00\u53ea\u72d7 \u8dd1"],
        "c": ["le chien court vite"],
        "d": ["."],
    }
    scores = evaluate(candidates, references, METRICS)
    for name, values in scores.per_image.items():
        assert all(np.isfinite(list(values.values()))), name
        if name != "ROUGE-L":  # which counts an empty caption as one empty word, as coco-caption
            assert values["a"] == pytest.approx(0, abs=1e-4), name
    assert scores.per_image["METEOR"]["b"] == 1.0
    assert 0 < scores.per_image["METEOR"]["c"] < 1


def test_a_metric_without_its_files_is_left_out_or_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgecap.training.metrics import meteor

    def absent() -> None:
        raise MissingExtraError("install something")

    monkeypatch.setattr(meteor, "_shared", absent)
    captions = ({"a": "a dog"}, {"a": ["the dog"]})
    with pytest.raises(MissingExtraError, match="install something"):
        evaluate(*captions, ["METEOR", "CIDEr"])
    scores = evaluate(*captions, ["METEOR", "CIDEr"], skip_missing=True)
    assert scores.left_out == {"METEOR": "install something"}
    assert list(scores.corpus) == ["CIDEr"]


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
        ({"a": "x"}, {"a": ["x"]}, ["CIDER"], "BLEU, METEOR, ROUGE-L, CIDEr, CIDEr-D"),
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
