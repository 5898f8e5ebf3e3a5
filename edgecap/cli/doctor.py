"""``edgecap doctor``: what this machine can run, and whether every engine captions as it should."""

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
    """Say what this machine has, try MODEL (a name or the path of a bundle) with every engine, and
    name the one that `edgecap.load` takes.

    A trial captions ten pictures and compares their tokens with those of ONNX Runtime on the CPU.
    TensorRT's engines are built first; without a GPU TensorRT for RTX builds them, if it is there,
    and nothing is run. Each failure comes with what to do. The exit code is 1 where captions differ
    or a trial failed.
    """
    from edgecap.doctor.gpu import gpu_facts
    from edgecap.doctor.machine import machine_facts
    from edgecap.doctor.trials import trial_pictures, try_engines
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.engines.choose import choose_engine

    bundle = read_bundle(resolve(model))
    looked_at = trial_pictures(Path(pictures) if pictures else None)
    facts = {**machine_facts(), **gpu_facts()}
    folder = Path(engines) if engines else None

    def show(title: str, text: str) -> None:
        if not as_json:
            click.echo(f"{title:>26}  {text}")

    for title, text in facts.items():
        show(title, text)
    trials = []
    for trial in try_engines(
        bundle, looked_at, precision, folder, say=lambda line: click.echo(line, err=True)
    ):
        trials.append(trial)
        show(f"{trial.engine} trial", trial.verdict)
        if trial.advice and trial.advice not in [earlier.advice for earlier in trials[:-1]]:
            show("", f"to do: {trial.advice}")
    choice = choose_engine(bundle)[1]  # after the trials, which built what was missing
    for index, line in enumerate(choice.lines()):
        show("" if index else "chosen", line)
    if as_json:
        told = {
            "machine": facts,
            "model": str(bundle.path),
            "trials": [trial.to_dict() for trial in trials],
            "engine": choice.to_dict(),
        }
        click.echo(json.dumps(told, ensure_ascii=False, indent=2))
    if any(trial.failed for trial in trials):
        context.exit(1)
