"""``edgecap eval``: score a model on a captioned data set."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgecap.runtime.caption import Caption
    from edgecap.training.data import CaptionedImage
    from edgecap.training.metrics import Scores


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap eval default --data flickr8k:data/flickr8k --split test
  edgecap eval runs/best.edgecap --data coco-captions:data/coco --split val --json
  edgecap eval default --data captions-csv:mine --split test --output captions.jsonl
""",
)
@click.argument("model")
@click.option("--data", required=True, metavar="NAME:FOLDER", help="Data set, by name and folder.")
@click.option("--split", required=True, help="Name of the split, such as test.")
@click.option("--beams", type=click.IntRange(1), help="Beam width; the model's own if not given.")
@click.option(
    "--batch", type=click.IntRange(1), default=8, show_default=True, help="Pictures at a time."
)
@click.option("--limit", type=click.IntRange(1), help="Only the first so many pictures.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads for the model.")
@click.option(
    "--intervals", is_flag=True, help="Add 95 % bootstrap intervals (1,000 samples, seed 0)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write captions and scores per picture: a list in *.json, else one JSON line each.",
)
def command(
    model: str,
    data: str,
    split: str,
    beams: int | None,
    batch: int,
    limit: int | None,
    threads: int | None,
    intervals: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Caption the pictures of a data set with MODEL and compare with what people wrote.

    Prints BLEU-1 to BLEU-4 and ROUGE-L (0 to 1) and CIDEr (0 to 10), equal to those of
    coco-caption. CIDEr takes its word statistics from the pictures scored, so --limit changes it.
    """
    import edgecap
    from edgecap.runtime.errors import DataError
    from edgecap.training.data import open_dataset
    from edgecap.training.metrics import bootstrap, evaluate

    dataset = open_dataset(data, split)
    if output is not None and not output.absolute().parent.is_dir():
        raise DataError(f"no folder for {str(output)!r}; make it first")
    if dataset.problems.missing_files or dataset.problems.without_captions:
        click.echo(f"left out: {dataset.problems}", err=True)
    images = dataset.images[:limit]
    captioner = edgecap.load(model, threads=threads)
    options: dict[str, Any] = {} if beams is None else {"beams": beams}
    captions: list[Caption] = []
    for part in _batches(images, batch):
        captions += captioner([image.path for image in part], **options)

    scores = evaluate(
        {image.id: caption.text for image, caption in zip(images, captions, strict=True)},
        {image.id: image.captions for image in images},
    )
    report: dict[str, Any] = {"images": len(images), **scores.corpus}
    report["mean_confidence"] = sum(c.confidence for c in captions) / len(captions)
    report["not_sure"] = sum(not c.sure for c in captions)
    report["left_out"] = len(dataset.problems.missing_files + dataset.problems.without_captions)
    if intervals:
        report["intervals"] = {
            name: [interval.low, interval.high] for name, interval in bootstrap(scores).items()
        }
    if output is not None:
        try:
            _write(output, _rows(images, captions, scores))
        except OSError as error:
            raise DataError(f"cannot write {str(output)!r}: {error.strerror}") from None
    if as_json:
        click.echo(json.dumps(report))
    else:
        _print_table(report)


def _batches(images: Sequence[CaptionedImage], size: int) -> Iterator[Sequence[CaptionedImage]]:
    """Runs of ``size`` images, with a progress bar on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("captioning", total=len(images))
        for start in range(0, len(images), size):
            part = images[start : start + size]
            yield part
            progress.advance(task, len(part))


def _rows(
    images: Sequence[CaptionedImage], captions: Sequence[Caption], scores: Scores
) -> list[dict[str, Any]]:
    return [
        {
            "image": image.id,
            "caption": caption.text,
            "confidence": caption.confidence,
            "score": caption.score,
            **{name: values[image.id] for name, values in scores.per_image.items()},
        }
        for image, caption in zip(images, captions, strict=True)
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write all of the file or nothing of it."""
    if path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    folder = path.absolute().parent
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=folder, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o666 & ~_umask())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _print_table(report: dict[str, Any]) -> None:
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
