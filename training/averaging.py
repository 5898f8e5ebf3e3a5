"""The mean of several checkpoints of one model: "model soup" (Wortsman et al. 2022).

Epochs of one run, or runs that start from one checkpoint, lie in one basin: the mean of their
weights often generalises better than any of them, at the cost of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from edgecap.runtime.errors import DataError
from edgecap.training.checkpoint import describe, load_model, same_tokenizer, save_model


def average_checkpoints(folders: Sequence[Path], out: Path) -> Path:
    """Write the mean of the weights to ``out``; what the first says of itself is kept.

    Raises ``DataError`` for fewer than two, and for models that are not one: another family,
    encoder, size or vocabulary.
    """
    if len(folders) < 2:
        raise DataError(f"{len(folders)} checkpoint to average; give two or more of one model")
    first = describe(folders[0])
    for folder in folders[1:]:
        other = describe(folder)
        for what, a, b in (
            ("family", first.family, other.family),
            ("encoder", first.encoder.name, other.encoder.name),
            ("size", first.options, other.options),
        ):
            if a != b:
                raise DataError(
                    f"{folder} has another {what} than {folders[0]} ({b}; {a}); give checkpoints "
                    "of one model"
                )
        if not same_tokenizer(first.tokenizer_json, other.tokenizer_json):
            raise DataError(f"{folder} has another vocabulary than {folders[0]}")
    model, tokenizer_json, meta = load_model(folders[0])
    mean = {name: value.double() for name, value in model.state_dict().items()}
    for folder in folders[1:]:
        for name, value in load_model(folder)[0].state_dict().items():
            mean[name] += value.double()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(mean[name] / len(folders))
    kept = {"quantize": meta["quantize"]} if "quantize" in meta else {}
    save_model(out, model, tokenizer_json, {**kept, "average_of": [f.name for f in folders]})
    return out
