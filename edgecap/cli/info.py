"""``edgecap info``: what a bundle says about itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from edgecap.runtime.manifest import GraphSpec, Manifest, TensorSpec


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  edgecap info default
  edgecap info --json my.edgecap
""",
)
@click.argument("model", default="default")
@click.option("--json", "as_json", is_flag=True, help="The whole manifest as JSON.")
def command(model: str, as_json: bool) -> None:
    """Show what MODEL (a name or the path of a bundle) is, where it comes from, what it scores, and
    which engine runs it on this machine.

    All of the bundle is checked on the way.
    """
    from edgecap.models import resolve
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.engines.choose import EngineChoice, choose_engine
    from edgecap.runtime.errors import EdgeCapError, OptionsError
    from edgecap.runtime.manifest import to_dict

    bundle = read_bundle(resolve(model))
    size = bundle.path.stat().st_size
    try:
        engine = choose_engine(bundle)[1]
    except OptionsError:
        raise
    except EdgeCapError as error:  # a model that no engine here runs is still shown
        engine = EngineChoice("", "none", str(error))
    if as_json:
        facts: dict[str, Any] = {"path": str(bundle.path), "bytes": size}
        facts |= {**to_dict(bundle.manifest), "engine": engine.to_dict()}
        click.echo(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    signed = ", signed" if bundle.signed else ""
    click.echo(f"{bundle.path} ({_megabytes(size)}{signed})")
    for title, text in _lines(bundle.manifest):
        click.echo(f"{title:>14}  {text}")
    for index, line in enumerate(engine.lines()):
        click.echo(f"{'' if index else 'engine':>14}  {line}")


def _lines(manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield "name", f"{manifest.name} {manifest.version}"
    yield "family", manifest.family
    yield "licence", manifest.licence
    if manifest.created_by:
        yield "created by", manifest.created_by
    size = manifest.image.size
    yield "image", f"{size} x {size} {manifest.image.channels}, {manifest.image.resize}"
    yield "vocabulary", f"{manifest.tokenizer.vocab_size} tokens"
    yield "positions", f"{manifest.max_positions}"
    decoding = manifest.decoding
    yield (
        "decoding",
        f"beams {decoding.beams}, max_new_tokens {decoding.max_new_tokens}, "
        f"length_penalty {decoding.length_penalty:g}",
    )
    quantisation = manifest.quantisation
    yield "encoder", quantisation.encoder
    yield "decoder", quantisation.decoder
    if quantisation.notes:
        yield "", quantisation.notes
    for title, graph in (
        ("encoder", manifest.graphs.encoder),
        ("decoder", manifest.graphs.decoder),
    ):
        yield from _graph(title, graph, manifest)
    if manifest.confidence is not None:
        fitted = manifest.confidence.fitted_on
        where = f", fitted on {fitted}" if fitted else ""
        yield "confidence", f"not sure under {manifest.confidence.floor:g}{where}"
    for data, splits in manifest.metrics.items():
        for split, precisions in splits.items():
            for precision, scores in precisions.items():
                values = ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
                yield "metrics", f"{data} {split}, {precision}: {values}"
    for entry in manifest.training_data:
        use = f" ({entry.use})" if entry.use else ""
        yield "trained on", f"{entry.name}: {entry.licence}{use}"
    if manifest.export is not None:
        yield "export", manifest.export.verdict
        for check in manifest.export.checks:
            yield "", check
    yield from manifest.provenance.items()


def _graph(title: str, graph: GraphSpec, manifest: Manifest) -> Iterator[tuple[str, str]]:
    yield f"{title} file", f"{graph.file} ({_megabytes(manifest.files[graph.file].bytes)})"
    for kind, specs in (("in", graph.inputs), ("out", graph.outputs)):
        yield f"{title} {kind}", ", ".join(_tensor(spec) for spec in specs)


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype}[{', '.join(str(side) for side in spec.shape)}]"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"
