"""What ``edgecap eval`` and ``edgecap score`` share: which metrics, tables and files of scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgecap.runtime.errors import DataError
from edgecap.runtime.files import replacing

if TYPE_CHECKING:
    from edgecap.training.metrics import Scores

_Command = TypeVar("_Command", bound=Callable[..., Any])


def options(command: _Command) -> _Command:
    """Add --metrics, --intervals, --json and --output, in this order."""
    for option in (
        click.option(
            "--output",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Write captions and scores per picture: a list in *.json, else one JSON line "
            "each.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="Print one JSON object instead of a table."
        ),
        click.option(
            "--intervals",
            is_flag=True,
            help="Add 95 % bootstrap intervals (1,000 samples, seed 0).",
        ),
        click.option(
            "--metrics",
            metavar="NAME,...",
            help="Some of BLEU, METEOR, ROUGE-L, CIDEr, CIDEr-D, SPICE; all if not given, less "
            "those whose files are not installed.",
        ),
    ):
        command = option(command)
    return command


def score(
    candidates: dict[str, str], references: dict[str, list[str]], metrics: str | None
) -> Scores:
    """Scores by the metrics asked for; without any asked for, by all whose files are installed.

    What is left out is said on standard error.
    """
    from edgecap.training.metrics import METRICS, evaluate

    if metrics is None:
        scores = evaluate(candidates, references, tuple(METRICS), skip_missing=True)
    else:
        names = {name.lower(): name for name in METRICS}
        asked = [name.strip() for name in metrics.split(",")]
        scores = evaluate(candidates, references, [names.get(name.lower(), name) for name in asked])
    for name, reason in scores.left_out.items():
        click.echo(f"{name} left out: {' '.join(reason.split())}", err=True)
    return scores


def add_intervals(report: dict[str, Any], scores: Scores) -> None:
    """Put 95 % bootstrap intervals into a report: name -> [low, high]."""
    from edgecap.training.metrics import bootstrap

    report["intervals"] = {
        name: [interval.low, interval.high] for name, interval in bootstrap(scores).items()
    }


def show(report: dict[str, Any], as_json: bool) -> None:
    """Print a report with the key ``images`` as one JSON object or as a table."""
    if as_json:
        click.echo(json.dumps(report))
        return
    from rich.console import Console
    from rich.table import Table

    intervals = report.get("intervals", {})
    table = Table("metric", title=f"{report['images']} images")
    table.add_column("score", justify="right")
    if intervals:
        table.add_column("95 %", justify="right")
    for name, value in report.items():
        if name in ("images", "intervals"):
            continue
        cells = [name, f"{value:.4f}" if isinstance(value, float) else str(value)]
        if name in intervals:
            low, high = intervals[name]
            cells.append(f"{low:.4f} to {high:.4f}")
        table.add_row(*cells)
    Console(file=sys.stdout).print(table)


def check_output(path: Path | None) -> None:
    """Raise DataError where the folder of an output file is missing, before any work is done."""
    if path is not None and not path.absolute().parent.is_dir():
        raise DataError(f"no folder for {str(path)!r}; make it first")


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all of the file or nothing of it; DataError where that fails."""
    if path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        with replacing(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise DataError(f"cannot write {str(path)!r}: {error.strerror}") from None
