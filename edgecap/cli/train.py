"""``edgecap train``: train a family on data sets, or run a training recipe."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap train show-and-tell --data flickr8k:data/flickr8k --weights weights --out runs/first
  edgecap train default --data data --weights weights --out runs/default options.epochs=3
  edgecap train image-transformer --data own:mine --out runs/mine init=runs/default/best
  torchrun --nproc-per-node 2 -m edgecap train default --data data --weights weights --out runs/two
""",
)
@click.argument("what", default="default", metavar="[FAMILY|RECIPE]")
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--data",
    multiple=True,
    metavar="NAME:FOLDER",
    help="Data set of a family, again for more; of a recipe the folder that holds its data sets.",
)
@click.option("--weights", default="", metavar="FOLDER", help="Folder of published weights.")
@click.option(
    "--output",
    "--out",
    "-o",
    "output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of the run; the same again goes on with it.",
)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file with keys of a recipe.")
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder of cached features [OUT/cache]."
)
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
@click.option("--strict", is_flag=True, help="Stop where the data has problems.")
def command(
    what: str,
    values: tuple[str, ...],
    data: tuple[str, ...],
    weights: str,
    output: Path,
    config: Path | None,
    cache: Path | None,
    threads: int,
    strict: bool,
) -> None:
    """Train a FAMILY of models on data sets, or run a RECIPE (a name or a YAML file).

    KEY=VALUE changes any key of the recipe, such as options.epochs=3, model.width=192 or
    encoder.name=mobilenet-edgetpu. Run the same again to go on with an interrupted run.
    """
    from edgecap.training.models import FAMILIES
    from edgecap.training.recipe import family_recipe, read_recipe
    from edgecap.training.run import train

    if "=" in what and not Path(what).exists():
        what, values = "default", (what, *values)
    if what in FAMILIES:
        recipe = family_recipe(what, data, weights, config=config, values=values)
    else:
        if len(data) > 1:
            raise click.UsageError(f"the recipe {what} takes one --data FOLDER")
        place = data[0] if data else ""
        recipe = read_recipe(what, place, weights, config=config, values=values)
    first = os.environ.get("RANK", "0") == "0"
    try:
        best = train(recipe, output, cache or output / "cache", threads, strict=strict)
    except KeyboardInterrupt:
        if first:
            click.echo("interrupted; run the same again to go on after its last epoch", err=True)
        raise
    if first:
        click.echo(f"best checkpoint: {best}")
