"""``edgecap index``: captions of all photographs in a folder, to be searched."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgecap.cli import options as shared
from edgecap.cli.main import BAD_INPUT, INTERRUPTED, fail

if TYPE_CHECKING:
    from edgecap.photos.batch import Report
    from edgecap.photos.index import Index


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap index ~/Pictures
  edgecap search "dog on the beach"
  edgecap index holiday --database holiday.db --beams 1
""",
)
@click.argument("folder", type=click.Path(path_type=Path))
@shared.DATABASE
@shared.MODEL
@click.option("--beams", type=int, default=4, show_default=True, help="Beam width; 1 is fastest.")
@shared.THREADS
@shared.ENGINE
@click.option("--workers", type=int, help="Threads that read pictures; by default the cores.")
@click.option("--follow-links", is_flag=True, help="Follow symbolic links, each folder once.")
@click.option("--keep-captions", is_flag=True, help="Keep captions of another model or --beams.")
@click.option("--retry", is_flag=True, help="Try pictures again that failed and did not change.")
@click.option("--prune", is_flag=True, help="Forget a folder that has no photographs any more.")
@click.option("--json", "as_json", is_flag=True, help="Tell what was done as one JSON object.")
@click.pass_context
def command(
    context: click.Context,
    folder: Path,
    database: Path | None,
    model: str,
    beams: int,
    threads: int | None,
    engine: str | None,
    workers: int | None,
    follow_links: bool,
    keep_captions: bool,
    retry: bool,
    prune: bool,
    as_json: bool,
) -> None:
    """Caption the photographs below FOLDER into an index for `edgecap search`.

    Run it again when photographs were added: those that have not changed are skipped, those that
    moved keep their captions, those that are gone are forgotten. Stopped with Ctrl-C or killed, it
    goes on where it was when it is started again; a second Ctrl-C does not wait for the captions in
    the making. FOLDER is only read.

    Pictures that cannot be read get a line on standard error, and the exit code is then 2; they are
    tried again when they change.
    """
    import edgecap
    from edgecap.cli.signals import stopping_on_signals
    from edgecap.photos.index import Index, IndexOptions
    from edgecap.photos.walk import printable

    options = IndexOptions(
        beams=beams,
        workers=workers,
        follow_links=follow_links,
        keep_captions=keep_captions,
        retry=retry,
        prune=prune,
    )
    captioner = edgecap.load(model, threads=threads, engine=engine)
    index = Index(database, captioner=captioner, options=options)
    with stopping_on_signals(index.stop) as seen:
        _with_bar(index, folder)
    report = index.report
    for path, why in report.failures.items():
        fail(why if why.startswith(path) else f"{path}: {why}")
    _tell(report, printable(folder), as_json)
    if seen:
        context.exit(INTERRUPTED)
    if report.failures:
        context.exit(BAD_INPUT)


def _with_bar(index: Index, folder: Path) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("photographs"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task("", total=None, rate="")

    def progress(report: Report) -> None:
        worked = report.captioned + report.reused + report.failed
        rate = f"{worked / report.seconds:.1f}/s" if worked and report.seconds else ""
        bar.update(task, total=report.found, completed=report.done, rate=rate)

    with bar:
        index.update(folder, progress=progress)


def _tell(report: Report, folder: str, as_json: bool) -> None:
    if as_json:
        import json
        from dataclasses import asdict

        told = {"folder": folder, "done": report.done, **asdict(report)}
        click.echo(json.dumps(told, ensure_ascii=False))
        return
    parts = [
        f"{count} {what}"
        for count, what in (
            (report.captioned, "captioned"),
            (report.reused, "moved or copied"),
            (report.unchanged, "unchanged"),
            (report.failed + report.kept_failures, "cannot be read"),
            (report.removed, "forgotten"),
            (report.links, "links left out"),
        )
        if count
    ]
    rate = f" ({report.captioned / report.seconds:.1f} captions/s)" if report.captioned else ""
    line = f"{folder}: {report.found} photographs: {', '.join(parts) or 'nothing to do'}"
    line += f" in {report.seconds:.1f} s{rate}"
    if report.interrupted:
        left = report.found - report.done
        line = f"stopped: {line}; {left} are left, run the same command again to go on"
    click.echo(line)
