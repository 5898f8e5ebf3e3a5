"""``edgecap caption``: a line for each photograph."""

from __future__ import annotations

import json
from typing import Any

import click

from edgecap.cli.main import BAD_INPUT, fail


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap caption photo.jpg
  edgecap caption --beams 1 holiday/*.jpg
  edgecap caption --model my.edgecap --json photo.png
""",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--model", default="default", show_default=True, help="Name or path of a bundle.")
@click.option("--beams", type=int, help="Beam width; the model's own if not given.")
@click.option("--max-new-tokens", type=int, help="Longest caption in tokens.")
@click.option("--threads", type=int, help="CPU threads; by default the cores, at most 4.")
@click.option("--engine", metavar="NAME", help="What runs the model; see docs/gpu.md [auto].")
@click.option(
    "--require-signature",
    type=click.Path(),
    metavar="KEY",
    help="Public key (PEM) that must have signed the model.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each picture.")
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
) -> None:
    """Caption the photographs at PATH..., one line each: `PATH: caption`.

    "(not sure)" follows a caption whose confidence is under the model's floor. A picture that
    cannot be read gets a line on standard error; the others are still captioned, and the exit code
    is then 2.
    """
    import edgecap
    from edgecap.runtime.errors import ImageError

    captioner = edgecap.load(
        model, threads=threads, engine=engine, require_signature=require_signature
    )
    options: dict[str, Any] = {"beams": beams, "max_new_tokens": max_new_tokens}
    captioner.options(**options)  # bad ones are told before any picture is read
    bad = False
    for path in paths:
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
    if bad:
        context.exit(BAD_INPUT)
