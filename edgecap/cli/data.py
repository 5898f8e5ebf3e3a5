"""``edgecap data``: which data sets there are, and what is wrong with one before training."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecap.training.data.checks import CheckReport


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap data list
  edgecap data check flickr8k:data/flickr8k
  edgecap data check own:mine --split train --split val --strict
""",
)
def command() -> None:
    """Look at data sets before training."""


@command.command("list", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def list_(as_json: bool) -> None:
    """Show the layouts that NAME:FOLDER can name, and what their folder holds."""
    from edgecap.training.data import DATASETS

    if as_json:
        rows = {
            name: {"files": layout.files, "options": list(layout.options)}
            for name, layout in DATASETS.items()
        }
        click.echo(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "files in its folder", "options")
    for name, layout in DATASETS.items():
        table.add_row(name, layout.files, ", ".join(layout.options))
    Console(file=sys.stdout).print(table)


@command.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap data check coco:data/coco --split train2017 --split val2017 --json
  edgecap data check "own:mine?seed=7" --strict
  edgecap data check "webdataset:data/shard-{000000..000009}.tar" --no-decode
""",
)
@click.argument("data", metavar="NAME:FOLDER")
@click.option(
    "--split",
    "splits",
    multiple=True,
    help="A split; give it several times. All that do not overlap if not given.",
)
@click.option("--strict", is_flag=True, help="Exit with 2 where anything is wrong.")
@click.option("--no-decode", is_flag=True, help="Compare the files, but do not decode them.")
@click.option("--threads", type=click.IntRange(1), help="Pictures read at a time.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def check(
    data: str,
    splits: tuple[str, ...],
    strict: bool,
    no_decode: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Look for what spoils training: missing or undecodable pictures, empty or cut captions,
    copies, and pictures that are in two splits.

    Training leaves out what is found; with --strict it is an error (exit code 2).
    """
    from edgecap.training.data import dataset_splits, open_dataset
    from edgecap.training.data.checks import check_splits

    names = list(dict.fromkeys(splits)) or dataset_splits(data)
    report = check_splits(
        [open_dataset(data, split) for split in names], decode=not no_decode, threads=threads
    )
    if as_json:
        click.echo(json.dumps(_facts(report), ensure_ascii=False))
    else:
        _print(report)
    if strict:
        report.raise_if_problems()


def _facts(report: CheckReport) -> dict[str, object]:
    return {
        "splits": [asdict(size) for size in report.sizes],
        "pictures": report.pictures,
        "decoded": report.decoded,
        "problems": report.problems,
        "counts": report.counts,
        "examples": {kind: list(texts) for kind, texts in report.examples.items() if texts},
        "usable": [
            {"images": len(d), "captions": sum(len(image.captions) for image in d)}
            for d in report.usable
        ],
    }


def _print(report: CheckReport) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout)
    table = Table("split", title=f"{report.pictures} pictures")
    for column in ("images", "captions", "usable images", "usable captions"):
        table.add_column(column, justify="right")
    for size, dataset in zip(report.sizes, report.usable, strict=True):
        captions = sum(len(image.captions) for image in dataset)
        row = (size.images, size.captions, len(dataset), captions)
        table.add_row(size.name, *(f"{number:,}" for number in row))
    console.print(table)
    table = Table("found", title=None if report.decoded else "pictures were not decoded")
    table.add_column("count", justify="right")
    table.add_column("such as")
    for kind, count in report.counts.items():
        if count:
            # Text: captions may hold what rich would read as its own marks.
            table.add_row(kind, f"{count:,}", Text("\n".join(report.examples[kind])))
    if table.row_count:
        console.print(table)
    else:
        console.print("nothing wrong was found")
