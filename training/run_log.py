"""The log of a run: a JSON line an epoch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's ``log.jsonl``; none without one. A line that was cut off ends it."""
    lines: list[dict[str, Any]] = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                break
    return lines


def summary(line: dict[str, Any], epochs: int) -> str:
    """A log line for people."""
    shown = [f"epoch {line['epoch']} of {epochs}"]
    shown += [f"loss {line['loss']:.3f}"] if "loss" in line else []
    shown += [f"{name} {line[name]:.3f}" for name in ("CIDEr", "BLEU-4") if name in line]
    shown += [f"{line['seconds']:.0f} s"] if "seconds" in line else []
    return f"{', '.join(shown)}; {line['sample']['image']}: {line['sample']['caption']!r}"
