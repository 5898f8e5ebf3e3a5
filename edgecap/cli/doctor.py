"""``edgecap doctor``: what this machine can run, and whether TensorRT captions as it should."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap doctor
  edgecap doctor my.edgecap --pictures holiday --precision int8
  edgecap doctor --json
""",
)
@click.argument("model", default="default")
@click.option("--pictures", type=click.Path(), help="Folder of ten pictures [drawn ones].")
@click.option("--precision", type=click.Choice(["fp16", "int8", "fp32"]), default="fp16")
@click.option("--engines", type=click.Path(), help="Folder of engines [the cache folder].")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def command(
    context: click.Context,
    model: str,
    pictures: str | None,
    precision: str,
    engines: str | None,
    as_json: bool,
) -> None:
    """Say what this machine has, then try MODEL (a name or the path of a bundle) with TensorRT.

    With a GPU its engines are built, ten pictures are captioned, and their tokens are compared with
    ONNX Runtime's. Without one TensorRT for RTX builds them, if it is installed, and nothing is
    run. The exit code is 1 where captions differ or the trial failed.
    """
    from edgecap.doctor import machine_facts, trial_pictures, try_model
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle

    bundle = read_bundle(resolve(model))
    looked_at = trial_pictures(Path(pictures) if pictures else None)
    facts = machine_facts()
    if not as_json:
        for title, text in facts.items():
            click.echo(f"{title:>14}  {text}")
    trial = try_model(
        bundle,
        looked_at,
        precision,
        Path(engines) if engines else None,
        say=lambda line: click.echo(line, err=True),
    )
    if as_json:
        told = {"machine": facts, "model": str(bundle.path), "trial": trial.to_dict()}
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        click.echo(f"{'verdict':>14}  {trial.verdict}")
    if trial.failed:
        context.exit(1)
