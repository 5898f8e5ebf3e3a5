"""Real captions and coco-caption itself, as fixtures."""

from __future__ import annotations

import contextlib
import csv
import importlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecap.training.metrics import tokenize

Captions = dict[str, list[str]]
References = dict[str, list[list[str]]]
CocoScore = Callable[[str, str, Captions, References], Any]
Tokenize = Callable[[list[str]], list[list[str]]]


@pytest.fixture(scope="session")
def oracle(shared: Path) -> Path:
    return shared / "data" / "metrics_oracle"


@pytest.fixture(scope="session")
def human(shared: Path) -> dict[str, dict[str, list[str]]]:
    """Set -> image -> captions, for the three captioned sets and the references of the oracle."""
    sets: dict[str, dict[str, list[str]]] = {}
    for name in ("flickr8k", "coco_captions", "coco_captions_more"):
        captions: dict[str, list[str]] = {}
        with open(shared / "data" / name / "captions.csv", newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                captions.setdefault(row["image"], []).append(row["caption"])
        sets[name] = captions
    sets["oracle"] = read_json(shared / "data/metrics_oracle/coco_val2014_973/references.json")
    return sets


@pytest.fixture(scope="session")
def java_tokenize() -> Tokenize:
    """coco-caption's own tokeniser, one Java process per call."""
    tokenizer = pytest.importorskip(
        "pycocoevalcap.tokenizer.ptbtokenizer", reason="pycocoevalcap is not installed"
    )
    if shutil.which("java") is None:
        pytest.skip("no java, which coco-caption's own tokeniser needs")

    def run(captions: list[str]) -> list[list[str]]:
        # A line between two captions: no caption shall see the first word of the next.
        lines = {i: [{"caption": text}, {"caption": "wall"}] for i, text in enumerate(captions)}
        found = tokenizer.PTBTokenizer().tokenize(lines)
        return [[w for w in found[i][0].split(" ") if w] for i in range(len(captions))]

    return run


@pytest.fixture(scope="session")
def coco_score() -> CocoScore:
    """(module, class, candidate tokens, reference tokens) -> corpus and image scores of
    coco-caption's own scorer."""
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")

    def score(module: str, name: str, candidates: Captions, references: References) -> Any:
        scorer = getattr(importlib.import_module(f"pycocoevalcap.{module}"), name)()
        with contextlib.redirect_stdout(io.StringIO()):
            return scorer.compute_score(
                {i: [" ".join(tokens) for tokens in references[i]] for i in candidates},
                {i: [" ".join(candidates[i])] for i in candidates},
            )

    return score


@pytest.fixture(scope="session")
def people(human: dict[str, dict[str, list[str]]]) -> tuple[Captions, References]:
    """Tokens of 1,000 photographs: one person's caption as candidate, four others as references."""
    images = list(human["flickr8k"].items())[:1000]
    return (
        {image: tokenize(texts[0]) for image, texts in images},
        {image: [tokenize(text) for text in texts[1:]] for image, texts in images},
    )


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
