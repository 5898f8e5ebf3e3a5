"""Bundles of a model that models.py made: NAME-fp32.edgecap and NAME-int8.edgecap beside it.

    python benchmarks/peers/bundles.py build/peers/vit-gpt2

Written without the gate of ``edgecap export``: random weights choose between many words that are
nearly as likely, which int8 decides otherwise, and what such a model says means nothing. run.py
compares the tokens of the float bundle with those of transformers. NAME-steps.edgecap has the int8
bundle's encoder and a decoder that own decoder steps read: its weights are int8, its graph float.

A checkpoint of this project gives its float bundle; its int8 is the model that comes with it, and
its photographs are what nncf takes the ranges of activations from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import click
import numpy as np

INT8 = "int8-dynamic"
STEPS = "int8-weights"
CALIBRATION = 32


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tokens", default=16, show_default=True, help="Longest caption.")
@click.option("--photographs", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path, tokens: int, photographs: Path | None) -> None:
    """Write the bundles of the model in FOLDER."""
    from edgecap.export.model import write_source
    from edgecap.export.precision import Converter, PrecisionOptions
    from edgecap.export.sources import open_source
    from edgecap.models import resolve

    source = open_source(str(folder), max_new_tokens=tokens)
    graphs = source.graphs()
    own = (folder / "model.json").is_file()
    names = ("fp32",) if own else ("fp32", INT8, STEPS)
    made = {name: Converter(*graphs, [], PrecisionOptions(name)).convert() for name in names}
    wanted = {"fp32": ("fp32", "fp32"), "int8": (INT8, INT8), "steps": (INT8, STEPS)}
    for suffix, (encoder, decoder) in wanted.items():
        out = folder.with_name(f"{folder.name}-{suffix}.edgecap")
        if encoder in made:
            pair = (made[encoder].encoder, made[decoder].decoder)
            write_source(out, source, pair, made[decoder].quantisation)
        elif suffix == "int8":
            shutil.copyfile(resolve("default"), out)
        else:
            continue
        click.echo(f"{out}: {out.stat().st_size / 1e6:.0f} MB, {encoder} and {decoder}")
    if photographs is not None:
        _calibration(folder, photographs, source.image.size)


def _calibration(folder: Path, photographs: Path, side: int) -> None:
    """The last photographs of a folder, so that none of them is timed later."""
    from edgecap.runtime.image import load_image, resize_image

    out = folder.with_name(f"{folder.name}-calibration")
    out.mkdir(exist_ok=True)
    for path in sorted(photographs.glob("*.jpg"))[-CALIBRATION:]:
        np.save(out / f"{path.stem}.npy", resize_image(load_image(path), side))


if __name__ == "__main__":
    main()
