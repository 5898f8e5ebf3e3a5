"""``edgecap quantize``: fine-tune a checkpoint for the int8 arithmetic that it will run in."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="Example: edgecap quantize runs/default/best --recipe default --data data "
    "--weights weights --output runs/int8"
)
@click.argument("checkpoint", type=click.Path())
@click.argument("values", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--output", "-o", required=True, type=click.Path(), help="Folder of the run.")
@click.option("--recipe", default="default", show_default=True, help="What it was trained by.")
@click.option("--data", required=True, type=click.Path(), help="Folder that holds the data sets.")
@click.option("--weights", default="weights", type=click.Path(), help="Folder of ImageNet weights.")
@click.option("--cache", type=click.Path(), help="Folder of cached features [OUTPUT/cache].")
@click.option(
    "--config",
    default="distil",
    show_default=True,
    help="distil, self-critical, or a YAML file of options.",
)
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
def command(
    checkpoint: str,
    values: tuple[str, ...],
    output: str,
    recipe: str,
    data: str,
    weights: str,
    cache: str | None,
    config: str,
    threads: int,
) -> None:
    """Fine-tune CHECKPOINT so that int8 costs it next to nothing; run it again to resume.

    KEY=VALUE changes any key of the configuration, such as train.epochs=1.
    """
    from edgecap.export.quantization_aware import fine_tune, read_options
    from edgecap.training.recipe import read_recipe

    best = fine_tune(
        Path(checkpoint),
        read_recipe(recipe, data, weights),
        Path(output),
        Path(cache) if cache else Path(output) / "cache",
        read_options(config, values),
        threads,
    )
    click.echo(f"best checkpoint: {best}")
