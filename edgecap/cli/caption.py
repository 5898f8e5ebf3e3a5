"""``edgecap caption``: a line for each photograph, or alternative texts for whole folders."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecap.cli import options as shared
from edgecap.cli.main import BAD_INPUT, INTERRUPTED, fail

if TYPE_CHECKING:
    from edgecap.photos.alt_text import NotSure, Writer
    from edgecap.photos.walk import Photograph
    from edgecap.photos.writers import WriteOptions
    from edgecap.runtime.caption import Caption
    from edgecap.runtime.captioner import Captioner
    from edgecap.runtime.errors import EdgeCapError


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap caption photo.jpg
  edgecap caption --beams 1 holiday/*.jpg
  edgecap caption --model my.edgecap --json photo.png
  edgecap caption shop/ --format csv -o alt_texts.csv
  edgecap caption holiday/ --format xmp --not-sure skip
  edgecap caption holiday/ --format xmp --into-copies for-the-web/
""",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@shared.MODEL
@shared.BEAMS
@click.option("--max-new-tokens", type=int, help="Longest caption in tokens.")
@shared.THREADS
@shared.ENGINE
@shared.REQUIRE_SIGNATURE
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each picture.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl", "html", "xmp"]),
    help="Write alternative texts: a table, lines of JSON, a page, or XMP side-cars.",
)
@click.option(
    "--output",
    "--out",
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="File for csv, jsonl (else standard output) and html; folder for side-cars.",
)
@click.option(
    "--not-sure",
    type=click.Choice(["skip", "mark", "keep"]),
    default="mark",
    show_default=True,
    help="Texts under the confidence floor: none, marked, or like the others.",
)
@click.option("--language", default="en", show_default=True, help="The texts' language tag.")
@click.option(
    "--sidecar-name",
    type=click.Choice(["full", "stem"]),
    default="full",
    show_default=True,
    help="photo.jpg.xmp or photo.xmp.",
)
@click.option(
    "--into-copies",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Write XMP into copies of the photographs in FOLDER.",
)
@click.option("--in-place", is_flag=True, help="Write XMP into the photographs themselves.")
@click.option("--replace", is_flag=True, help="Write over alternative texts that are there.")
@click.option("--follow-links", is_flag=True, help="Follow symbolic links in folders.")
@click.pass_context
def command(
    context: click.Context,
    paths: tuple[str, ...],
    model: str,
    beams: int | None,
    max_new_tokens: int | None,
    threads: int | None,
    engine: str | None,
    require_signature: str | None,
    as_json: bool,
    kind: str | None,
    out: Path | None,
    not_sure: NotSure,
    language: str,
    sidecar_name: Any,
    into_copies: Path | None,
    in_place: bool,
    replace: bool,
    follow_links: bool,
) -> None:
    """Caption the photographs at PATH..., one line each: `PATH: caption`.

    Of a folder all photographs in it and below are taken. With --format their captions are written
    as alternative texts; see docs/alt_text.md. The photographs stay as they are, but with
    --in-place.

    "(not sure)" follows a caption whose confidence is under the model's floor. A picture that
    cannot be read gets a line on standard error; the others are still captioned, and the exit code
    is then 2.
    """
    import edgecap
    from edgecap.photos.walk import gather

    where = {"out": out, "into_copies": into_copies, "in_place": in_place, "replace": replace}
    how = {"language": language, "sidecar_name": sidecar_name}
    plan = _plan(kind, as_json, where, how)
    captioner = edgecap.load(
        model, threads=threads, engine=engine, require_signature=require_signature
    )
    options: dict[str, Any] = {"beams": beams, "max_new_tokens": max_new_tokens}
    decoding = captioner.options(**options)  # bad ones are told before any picture is read
    as_given = plan is None or plan.format != "xmp"
    photographs, problems = gather(paths, follow_links=follow_links, as_given=as_given)
    for path, why in problems.items():
        fail(why if why.startswith(path) else f"{path}: {why}")
    if plan is None:
        bad = _lines(captioner, photographs, options, as_json)
    else:
        from edgecap.photos.ahead import caption_photographs
        from edgecap.photos.writers import open_writer

        originals = [Path(path) for path in paths if Path(path).is_dir()]
        writer = open_writer(plan, originals)
        captions = caption_photographs(captioner, photographs, decoding)
        bad = _write(captions, len(photographs), writer, not_sure)
    if bad or problems:
        context.exit(BAD_INPUT)


def _plan(
    kind: Any, as_json: bool, where: dict[str, Any], how: dict[str, Any]
) -> WriteOptions | None:
    """Options of writing, checked; None where captions are lines on standard output."""
    from edgecap.photos.writers import WriteOptions
    from edgecap.runtime.errors import OptionsError

    if kind is not None:
        if as_json:
            raise OptionsError("--json is for lines without --format; give --format jsonl")
        return WriteOptions(format=kind, **where, **how)
    if any(where.values()):
        raise OptionsError(
            "-o, --into-copies, --in-place and --replace need --format csv, jsonl, html or xmp"
        )
    return None


def _lines(
    captioner: Captioner, photographs: list[Photograph], options: dict[str, Any], as_json: bool
) -> bool:
    """A line for each picture as soon as it is captioned; whether one could not be read."""
    from edgecap.runtime.errors import ImageError

    bad = False
    for photograph in photographs:
        path = photograph.relative
        try:
            caption = captioner(path, **options)
        except ImageError as error:
            fail(str(error))
            bad = True
            continue
        if as_json:
            line = json.dumps({"path": path, **caption.to_dict()}, ensure_ascii=False)
        else:
            line = f"{path}: {caption}"
        click.echo(line)
    return bad


def _write(
    captions: Iterable[tuple[Photograph, Caption | EdgeCapError]],
    count: int,
    writer: Writer,
    not_sure: NotSure,
) -> bool:
    """Write alternative texts with a bar on standard error; whether one could not be written."""
    from rich.console import Console
    from rich.progress import track

    from edgecap.photos.alt_text import write_all

    bad = 0
    shown = track(
        write_all(captions, writer, not_sure),
        total=count,
        description="photographs",
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    try:
        for _, error in shown:
            if error is not None:
                fail(str(error))
                bad += 1
    except KeyboardInterrupt:
        click.echo(f"stopped: {_told(writer, bad)} of {count}", err=True)
        click.get_current_context().exit(INTERRUPTED)
    if sys.stderr.isatty() or writer.kept:
        click.echo(_told(writer, bad), err=True)
    return bool(bad)


def _told(writer: Writer, bad: int) -> str:
    parts = [f"{writer.written} written"]
    if writer.kept:
        parts.append(f"{writer.kept} kept as they were (--replace writes over them)")
    if bad:
        parts.append(f"{bad} failed")
    return ", ".join(parts)
