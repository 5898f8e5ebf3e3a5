"""``edgecap export``: make bundles of a trained checkpoint and measure them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import click


@click.command(
    epilog="Example: edgecap export runs/default/best -o default.edgecap --recipe default "
    "--data data --weights weights --test flickr8k:data/flickr8k=test --record records/default"
)
@click.argument("checkpoint", type=click.Path())
@click.option("--output", "-o", required=True, type=click.Path(), help="The int8 bundle.")
@click.option("--recipe", default="default", show_default=True, help="What it was trained by.")
@click.option("--data", required=True, type=click.Path(), help="Folder that holds the data sets.")
@click.option("--weights", default="weights", type=click.Path(), help="Folder of ImageNet weights.")
@click.option("--record", type=click.Path(), help="Folder of the record [beside the output].")
@click.option(
    "--test",
    "tests",
    multiple=True,
    metavar="NAME:FOLDER=SPLIT",
    help="Measured once, at the end; never used for choosing.",
)
@click.option(
    "--float-checkpoint",
    type=click.Path(),
    help="The model that CHECKPOINT was fine-tuned for int8 from; its scores stand as float32.",
)
@click.option(
    "--made-by", metavar="TEXT", help="The commands that made CHECKPOINT, for the manifest."
)
@click.option("--name", default="default", show_default=True, help="The model's name.")
@click.option("--threads", type=click.IntRange(1, 256), default=2, show_default=True)
def command(
    checkpoint: str,
    output: str,
    recipe: str,
    data: str,
    weights: str,
    record: str | None,
    tests: tuple[str, ...],
    float_checkpoint: str | None,
    made_by: str | None,
    name: str,
    threads: int,
) -> None:
    """Export CHECKPOINT, a folder that `edgecap train` wrote: a float bundle and an int8 one."""
    from edgecap.export.bundle import ExportOptions
    from edgecap.export.release import ReleaseOptions, release
    from edgecap.runtime.errors import DataError, OptionsError
    from edgecap.runtime.manifest import DecodingDefaults
    from edgecap.training.corpus import SplitSpec
    from edgecap.training.recipe import read_recipe
    from edgecap.training.validate import SUPPRESSED

    specs = []
    for test in tests:
        place, equals, split = test.rpartition("=")
        if not equals:
            raise OptionsError(f"--test is {test!r}; give NAME:FOLDER=SPLIT")
        specs.append(SplitSpec(place, split))
    folder = Path(checkpoint)
    for place in (checkpoint, float_checkpoint or checkpoint):
        if not (Path(place) / "model.json").is_file():
            raise DataError(
                f"{place} is no checkpoint: it has no model.json; give the folder that "
                "`edgecap train` or `edgecap quantize` printed"
            )
    out = Path(output)
    plan = read_recipe(recipe, data, weights)
    options = ExportOptions(
        name=name,
        decoding=DecodingDefaults(**plan.decoding, suppress_tokens=SUPPRESSED),
        licence=plan.licence,
        training_data=tuple(plan.training_data),
        provenance={
            "command": made_by
            or f"edgecap train {recipe} --data DATA --weights WEIGHTS --output RUN",
            "seed": str(plan.options.seed),
            "date": date.today().isoformat(),
        },
    )
    made = release(
        folder,
        plan,
        out,
        Path(record) if record else out.parent / f"{out.stem}-record",
        ReleaseOptions(
            options,
            tuple(specs),
            threads=threads,
            about=plan.about,
            float_checkpoint=Path(float_checkpoint) if float_checkpoint else None,
        ),
    )
    click.echo(f"{made.bundle} {made.bundle.stat().st_size / 1e6:.2f} MB")
    click.echo(f"{made.float_bundle} {made.float_bundle.stat().st_size / 1e6:.2f} MB")
