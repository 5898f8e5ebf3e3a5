"""What a run leaves behind: log, TensorBoard events, and checkpoints: best, last, those kept."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from edgecap.training.checkpoint import recover, same_tokenizer, save_model
from edgecap.training.errors import TrainingError
from edgecap.training.events import Events
from edgecap.training.models.base import CaptionModel
from edgecap.training.options import TrainOptions
from edgecap.training.run_log import read_log

EPOCH = "epoch-"


class RunFolder:
    """The files of one run in ``path``; all are written by one process."""

    def __init__(self, path: Path, tokenizer_json: str, options: TrainOptions) -> None:
        self.path, self.tokenizer_json, self.options = path, tokenizer_json, options
        self._events: Events | None = None

    def recover(self) -> None:
        """Make the folder, and put back what a write that was cut off left beside its place."""
        self.path.mkdir(parents=True, exist_ok=True)
        kept = [path.name for path in kept_epochs(self.path)]
        for name in ("best", "last", "state", *kept):
            recover(self.path / name)

    def is_of(self, tokenizer_json: str) -> bool:
        """Whether what is there, if anything is, was trained with that vocabulary."""
        last = self.path / "last" / "tokenizer.json"
        return not last.exists() or same_tokenizer(last.read_text(), tokenizer_json)

    def cut_log(self, epoch: int) -> list[dict[str, Any]]:
        """Leave the log's lines up to ``epoch``: those after it are of a state that was not saved
        any more, and come again."""
        path = self.path / "log.jsonl"
        lines = read_log(path)
        kept = [line for line in lines if line["epoch"] <= epoch]
        if kept != lines:
            part = path.with_suffix(".part")
            part.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(part, path)
        return kept

    def open_events(self, step: int) -> None:
        if self.options.events:
            self._events = Events(self.path / "events", step)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def scalars(self, values: dict[str, float], step: int) -> None:
        if self._events is not None:
            self._events.scalars(values, step)

    def log(self, line: dict[str, Any], step: int) -> None:
        """Add an epoch's line. Raises TrainingError where it cannot be written."""
        try:
            with (self.path / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            self.scalars({k: v for k, v in line.items() if isinstance(v, float)}, step)
            if self._events is not None:
                self._events.text("sample", line["sample"]["caption"], step)
        except OSError as error:
            raise TrainingError(
                f"{self.path} could not be written ({error}); the epoch before it is kept: make "
                "room and run the same again"
            ) from None

    def save(self, model: CaptionModel, line: dict[str, Any], *, best: bool) -> None:
        """Write ``model`` as the last one, as the best one if it is, and as one of those kept."""
        names = ["best"] if best else []
        names += [f"{EPOCH}{line['epoch']}"] if self.options.keep else []
        for name in (*names, "last"):
            save_model(self.path / name, model, self.tokenizer_json, line)
        if self.options.keep:
            for old in kept_epochs(self.path)[: -self.options.keep]:
                shutil.rmtree(old)


def kept_epochs(run: Path) -> list[Path]:
    """The checkpoints of single epochs that a run kept, oldest first."""
    found = [path for path in run.glob(f"{EPOCH}*") if path.name[len(EPOCH) :].isdigit()]
    return sorted(found, key=lambda path: int(path.name[len(EPOCH) :]))
