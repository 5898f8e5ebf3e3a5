"""``edgecap search``: photographs by words of their captions."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgecap.cli import options as shared
from edgecap.cli.main import BAD_INPUT, fail


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap search "dog on the beach"
  edgecap search --limit 5 --json red car
  edgecap search --folder ~/Pictures/2024 --html found.html snow
""",
)
@click.argument("words", nargs=-1, required=True, metavar="WORDS...")
@shared.DATABASE
@click.option("--folder", type=click.Path(path_type=Path), help="Photographs below it only.")
@click.option("--limit", type=int, default=20, show_default=True, help="How many at most.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each photograph.")
@click.option(
    "--html",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write them as a page of thumbnails, too.",
)
@click.pass_context
def command(
    context: click.Context,
    words: tuple[str, ...],
    database: Path | None,
    folder: Path | None,
    limit: int,
    as_json: bool,
    html: Path | None,
) -> None:
    """Find photographs whose captions have WORDS, best first: a line each, `PATH: caption`.

    The index is made by `edgecap index`. Where no caption has all of the words, those with some of
    them are shown, and a line on standard error says so.
    """
    from edgecap.photos.query import search

    answer = search(" ".join(words), database=database, folder=folder, limit=limit)
    for hit in answer.hits:
        if as_json:
            click.echo(json.dumps(hit.to_dict(), ensure_ascii=False))
        else:
            click.echo(str(hit))
    if not answer.hits:
        click.echo(f"no caption has {' or '.join(answer.words)}", err=True)
    elif answer.matched == "any":
        click.echo(f"no caption has all of: {', '.join(answer.words)}; these have some", err=True)
    if html is not None:
        from edgecap.photos.html_page import write_hits

        problems = write_hits(html, answer)
        for problem in problems:
            fail(problem)
        if problems:
            context.exit(BAD_INPUT)
