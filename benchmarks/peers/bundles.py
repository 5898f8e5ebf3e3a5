"""Bundles of a model that models.py made: NAME-fp32.edgecap and NAME-int8.edgecap beside it.

    python benchmarks/peers/bundles.py build/peers/vit-gpt2

Written without the gate of ``edgecap export``: random weights choose between many words that are
nearly as likely, which int8 decides otherwise, and what such a model says means nothing. run.py
compares the tokens of the float bundle with those of transformers.
"""

from __future__ import annotations

from pathlib import Path

import click

INT8 = "int8-dynamic"


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokens", default=16, show_default=True, help="Longest caption.")
def main(folder: Path, tokens: int) -> None:
    """Write both bundles of the model in FOLDER."""
    from edgecap.export.model import write_source
    from edgecap.export.precision import Converter, PrecisionOptions
    from edgecap.export.sources import open_source

    source = open_source(str(folder), max_new_tokens=tokens)
    graphs = source.graphs()
    for suffix, precision in (("fp32", "fp32"), ("int8", INT8)):
        made = Converter(*graphs, [], PrecisionOptions(precision)).convert()
        out = folder.with_name(f"{folder.name}-{suffix}.edgecap")
        write_source(out, source, (made.encoder, made.decoder), made.quantisation)
        click.echo(f"{out}: {out.stat().st_size / 1e6:.0f} MB, {precision}")


if __name__ == "__main__":
    main()
