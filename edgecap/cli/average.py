"""``edgecap average``: the mean of several checkpoints of one model."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap train default --data data --weights weights --out runs/mine options.keep=3
  edgecap average runs/mine/epoch-15 runs/mine/epoch-16 runs/mine/best -o runs/mine/mean
""",
)
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path), help="The new checkpoint."
)
def command(checkpoints: tuple[Path, ...], output: Path) -> None:
    """Write the mean weights of CHECKPOINTS, epochs of one run or runs from one start."""
    from edgecap.training.averaging import average_checkpoints

    click.echo(average_checkpoints(checkpoints, output))
