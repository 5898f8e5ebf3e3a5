"""``edgecap train``: run a training recipe."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="Example: edgecap train default --data data --weights weights --output runs/default"
)
@click.argument("recipe", default="default")
@click.option("--data", required=True, type=click.Path(), help="Folder that holds the data sets.")
@click.option("--weights", required=True, type=click.Path(), help="Folder of ImageNet weights.")
@click.option("--output", "-o", required=True, type=click.Path(), help="Folder of the run.")
@click.option("--cache", type=click.Path(), help="Folder of cached features [OUTPUT/cache].")
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
def command(
    recipe: str, data: str, weights: str, output: str, cache: str | None, threads: int
) -> None:
    """Train RECIPE (a name in training/configs or a YAML file). Run it again to resume."""
    from edgecap.training.recipe import read_recipe
    from edgecap.training.run import train

    best = train(
        read_recipe(recipe, data, weights),
        Path(output),
        Path(cache) if cache else Path(output) / "cache",
        threads,
    )
    click.echo(f"best checkpoint: {best}")
