"""``edgecap bench compare``: two records, and whether they differ by more than noise."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap bench compare before.json after.json
  edgecap bench compare orin.json laptop.json --across-machines
""",
)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option(
    "--across-machines", is_flag=True, help="Compare records of different machines all the same."
)
def command(before: Path, after: Path, across_machines: bool) -> None:
    """Say for each stage of the runs that BEFORE and AFTER have in common how many times as fast
    AFTER is, with the 95 % interval, or that the difference is within noise.

    BEFORE and AFTER are records of `edgecap bench --json`. Runs on a restless machine get no
    verdict. Exit code 2: a file is no record, or the two cannot be compared.
    """
    from edgecap.bench.compare import compare
    from edgecap.bench.record import read_record
    from edgecap.bench.tables import print_comparison

    print_comparison(compare(read_record(before), read_record(after), across_machines))
