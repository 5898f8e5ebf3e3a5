"""Curves of a training run from its log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def plot_log(log: Path, out: Path) -> None:
    """Training loss and validation scores by epoch, from ``log.jsonl`` to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    left.plot(*_curve(lines, "loss"), "o-")
    left.set(xlabel="epoch", title="training loss (label smoothing included)")
    names = {name: None for line in lines for name in line if name.endswith(("CIDEr", "BLEU-4"))}
    for name in names:
        right.plot(*_curve(lines, name), "o-", label=name)
    right.set(xlabel="epoch", title="validation")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    pyplot.close(figure)


def _curve(lines: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Epochs that have ``name``, and its values."""
    found = [(line["epoch"], line[name]) for line in lines if name in line]
    return [epoch for epoch, _ in found], [value for _, value in found]
