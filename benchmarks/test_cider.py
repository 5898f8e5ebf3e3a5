"""Captions per second of CIDEr-D: the C++ kernel, the Python form and pycocoevalcap.

All score the same captions against the same references and are checked to agree first. The
references are prepared outside the timed call where that is possible, as in a training loop;
pycocoevalcap has no such form and does it in every call. The paired ratio is printed with
``pytest benchmarks/test_cider.py -s``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgecap.training.metrics import Cider, DocumentFrequency
from edgecap.training.metrics.cider_d import CiderD, pad

IMAGES, REFERENCES, VOCAB = 1000, 5, 3000

Score = Callable[[], Any]


@pytest.fixture(scope="module")
def scorers() -> dict[str, Score]:
    scorer = pytest.importorskip(
        "pycocoevalcap.cider.cider", reason="pycocoevalcap is not installed"
    )
    rng = np.random.default_rng(0)

    def caption() -> list[int]:
        # As in captions: few words make up most of the text, and about eleven make a caption.
        return (rng.zipf(1.3, rng.integers(8, 15)) % VOCAB).tolist()

    references = [[caption() for _ in range(REFERENCES)] for _ in range(IMAGES)]
    # Half of a reference and half of another: candidates that share n-grams with their images.
    candidates = [refs[0][:6] + refs[1][6:] for refs in references]
    words = {i: [" ".join(f"w{t}" for t in r) for r in refs] for i, refs in enumerate(references)}
    texts = {i: [" ".join(f"w{t}" for t in c)] for i, c in enumerate(candidates)}
    tokens, lengths = pad(candidates)
    images = np.arange(IMAGES)
    kernel = CiderD(references)
    python = Cider(DocumentFrequency.of(references))
    prepared = [python.prepare(refs) for refs in references]
    return {
        "kernel": lambda: kernel.score(images, tokens, lengths),
        "kernel with construction": lambda: CiderD(references).score(images, tokens, lengths),
        "python": lambda: [python.score(c, p) for c, p in zip(candidates, prepared, strict=True)],
        "pycocoevalcap": lambda: scorer.Cider().compute_score(words, texts)[1],
    }


@pytest.mark.parametrize("name", ["kernel", "kernel with construction", "python", "pycocoevalcap"])
def test_captions_per_second(benchmark: Any, scorers: dict[str, Score], name: str) -> None:
    benchmark.group = f"CIDEr-D of {IMAGES} captions, {REFERENCES} references each"
    assert scorers[name]() == pytest.approx(scorers["pycocoevalcap"](), abs=1e-9)
    benchmark.pedantic(scorers[name], rounds=20 if "kernel" in name else 5, warmup_rounds=1)
    median = benchmark.stats.stats.median
    benchmark.extra_info["captions_per_second"] = round(IMAGES / median)


def test_kernel_is_at_least_twenty_times_as_fast(
    scorers: dict[str, Score], record_property: Any
) -> None:
    """Pairs of runs one right after the other, so that a busy machine slows both alike."""

    def seconds(run: Score) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    for name in ("kernel", "kernel with construction"):
        ratios = [seconds(scorers["pycocoevalcap"]) / seconds(scorers[name]) for _ in range(7)]
        ratio = float(np.median(ratios))
        record_property(f"ratio of {name}", round(ratio, 1))
        print(f"\n{name}: {ratio:.0f} times pycocoevalcap ({min(ratios):.0f} to {max(ratios):.0f})")
        if name == "kernel":
            assert ratio >= 20
