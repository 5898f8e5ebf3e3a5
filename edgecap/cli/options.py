"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

import click

MODEL = click.option(
    "--model", default="default", show_default=True, help="Name or path of a bundle."
)
BEAMS = click.option("--beams", type=int, help="Beam width; the model's own if not given.")
THREADS = click.option("--threads", type=int, help="CPU threads; by default the cores, at most 4.")
ENGINE = click.option(
    "--engine", metavar="NAME", help="What runs the model; see docs/gpu.md [auto]."
)
REQUIRE_SIGNATURE = click.option(
    "--require-signature",
    type=click.Path(),
    metavar="KEY",
    help="Public key (PEM) that must have signed the model.",
)
DATABASE = click.option(
    "--database",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="EDGECAP_DATABASE",
    help="The index; by default edgecap/photos.db in your data folder.",
)
PROFILE = click.option(
    "--profile",
    metavar="NAME",
    help="driving, smart-home, assistive or a YAML file: see `edgecap profiles`.",
)
