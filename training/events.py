"""TensorBoard events of a run; without the package one line says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Events:
    """Scalars and sample captions by step, in ``folder``.

    step : events from this step on are of an interrupted run and are hidden
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            click.echo("no TensorBoard events: pip install tensorboard", err=True)
            return
        self._writer = SummaryWriter(str(folder), purge_step=step if step else None)

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def text(self, name: str, text: str, step: int) -> None:
        if self._writer is not None:
            self._writer.add_text(name, text, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
