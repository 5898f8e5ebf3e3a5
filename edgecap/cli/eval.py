"""``edgecap eval``: score a model on a captioned data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import scores as shared

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
@shared.options
def command(
    model: str,
    data: str,
    split: str,
    beams: int | None,
    batch: int,
    limit: int | None,
    threads: int | None,
    metrics: str | None,
    intervals: bool,
    as_json: bool,
    output: Path | None,
) -> None:
    """Caption the pictures of a data set with MODEL and compare with what people wrote.

    Prints BLEU-1 to BLEU-4, METEOR, ROUGE-L and SPICE (0 to 1), CIDEr and CIDEr-D (0 to 10).
    CIDEr takes its word statistics from the pictures scored, so --limit changes it.
    """
    import edgecap
    from edgecap.training.data import open_dataset

    dataset = open_dataset(data, split)
    shared.check_output(output)
    if dataset.problems.missing_files or dataset.problems.without_captions:
        click.echo(f"left out: {dataset.problems}", err=True)
    images = dataset.images[:limit]
    captioner = edgecap.load(model, threads=threads)
    options: dict[str, Any] = {} if beams is None else {"beams": beams}
    captions: list[Caption] = []
    for part in _batches(images, batch):
        captions += captioner([image.path for image in part], **options)

    scores = shared.score(
        {image.id: caption.text for image, caption in zip(images, captions, strict=True)},
        {image.id: list(image.captions) for image in images},
        metrics,
    )
    report: dict[str, Any] = {"images": len(images), **scores.corpus}
    report["mean_confidence"] = sum(c.confidence for c in captions) / len(captions)
    report["not_sure"] = sum(not c.sure for c in captions)
    report["left_out"] = len(dataset.problems.missing_files + dataset.problems.without_captions)
    if intervals:
        shared.add_intervals(report, scores)
    if output is not None:
        shared.write_rows(output, _rows(images, captions, scores))
    shared.show(report, as_json)


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
