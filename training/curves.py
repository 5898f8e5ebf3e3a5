"""Curves of a training run from its log."""

from __future__ import annotations

import json
from pathlib import Path


def plot_log(log: Path, out: Path) -> None:
    """Training loss and validation scores by epoch, from ``log.jsonl`` to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    epochs = [line["epoch"] for line in lines]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6))
    left.plot(epochs, [line["loss"] for line in lines], "o-")
    left.set(xlabel="epoch", title="training loss (label smoothing included)")
    for name in lines[0]:
        if name.endswith(("CIDEr", "BLEU-4")):
            right.plot(epochs, [line[name] for line in lines], "o-", label=name)
    right.set(xlabel="epoch", title="validation")
    right.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out, dpi=100)
    pyplot.close(figure)
