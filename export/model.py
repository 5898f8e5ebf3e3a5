"""Any source to a bundle: float graphs, another precision, the gate, the report.

Nothing is at the place of the output until every check has passed; a file that was there before is
replaced in one move.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgecap.export.gate import Check, GateOptions, check_float, check_quantised, demand
from edgecap.export.photographs import ADVISED, Photographs
from edgecap.export.precision import CALIBRATED, Converted, Converter, PrecisionOptions
from edgecap.export.report import Report, Variant, measure, write_report
from edgecap.export.sources import Pair, Source
from edgecap.runtime.bundle import Bundle, read_bundle, write_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.errors import DataError
from edgecap.runtime.image import resize_image
from edgecap.runtime.manifest import DataEntry, ExportRecord, Graphs, Manifest, Quantisation
from edgecap.training.no_photographs import no_photographs

TRIES = 4  # each with half the error budget of the one before
GENERATED = 16


@dataclass(frozen=True)
class ModelOptions:
    """How a source becomes a bundle.

    calibration : photographs that activation ranges are taken from
    parity : photographs that a float export is compared on
    notice : is told what to say to the user, a line at a time
    """

    name: str = ""
    version: str = "1"
    licence: str = ""
    precision: PrecisionOptions = field(default_factory=PrecisionOptions)
    gate: GateOptions = field(default_factory=GateOptions)
    calibration: int = 128
    parity: int = 50
    training_data: tuple[DataEntry, ...] = ()
    command: tuple[str, ...] = ()
    threads: int = 2
    seed: int = 0
    notice: Callable[[str], None] = lambda line: None


@dataclass(frozen=True)
class Made:
    """What an export wrote and found; ``variants`` are float32 and what it became."""

    bundle: Bundle
    checks: tuple[Check, ...]
    converted: Converted
    variants: tuple[Variant, ...]


def export_model(
    source: Source,
    out: Path,
    photographs: Photographs | None,
    options: ModelOptions,
    report: Path | None = None,
) -> Made:
    """Write the bundle of ``source`` in the precision of ``options`` to ``out``, and the report.

    photographs : for calibration and the gate; without them a float export is checked on
        generated pictures, and says so

    Raises ``DataError`` where a check fails: the bundle is not written then.
    """
    precision = options.precision.precision
    if photographs is None and precision in CALIBRATED:
        raise DataError(
            f"{precision} needs photographs to calibrate with; give --images with a folder of "
            f"{ADVISED} or more"
        )
    if photographs is not None and len(photographs) < ADVISED and precision in CALIBRATED:
        options.notice(
            f"{len(photographs)} photographs to calibrate with are few; {ADVISED} or more "
            "give steadier ranges"
        )
    if source.quantised and precision != "fp32":
        raise DataError(
            f"{source.name} is quantised already ({source.quantised}); give the float bundle or "
            "the checkpoint that it was made of"
        )
    for note in source.notes:
        options.notice(note)
    graphs = source.graphs()
    # In the folder of the output: the last step is one move.
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        plain = write_source(Path(folder) / "float.edgecap", source, graphs, None, options)
        right = Captioner(plain, threads=options.threads)
        pictures = _pictures(photographs, right.image_size, options)
        checks = check_float(right, source.engine, source.reference, pictures, options.gate)
        demand(checks, source.name)
        if precision == "fp32":
            converted = Converted(*graphs, Quantisation())
        else:
            converted, found = _convert(
                source, graphs, right, photographs, Path(folder) / "small.edgecap", options
            )
            checks = [*checks, *found]
        record = _record(checks, photographs, converted, options)
        pair = (converted.encoder, converted.decoder)
        bundle = write_source(out, source, pair, converted.quantisation, options, record)
        variants = [measure("fp32", plain, pictures, options.threads)]
        if precision != "fp32":
            variants.append(measure(precision, bundle, pictures, options.threads))
    made = Made(bundle, tuple(checks), converted, tuple(variants))
    if report is not None:
        write_report(report, _report(made, record))
    return made


def _report(made: Made, record: ExportRecord) -> Report:
    metrics = {name: scores for check in made.checks for name, scores in check.scores.items()}
    manifest = made.bundle.manifest
    facts = {
        "Licence": manifest.licence or "not stated",
        "Encoder": manifest.quantisation.encoder,
        "Decoder": manifest.quantisation.decoder,
    }
    title = f"{manifest.name} {manifest.version}"
    layers = made.converted.layers
    return Report(title, record, made.checks, made.variants, layers, metrics, facts)


def _convert(
    source: Source,
    graphs: Pair,
    right: Captioner,
    photographs: Photographs | None,
    place: Path,
    options: ModelOptions,
) -> tuple[Converted, list[Check]]:
    """The graphs in another precision, with as many integer layers as pass the gate."""
    calibration: list[npt.NDArray[np.uint8]] = []
    if photographs is not None:
        few = photographs.pixels(options.calibration)
        calibration = [resize_image(one, source.image) for one in few]
    converter = Converter(*graphs, calibration, options.precision, options.threads, source.quantize)
    budget = options.precision.budget
    for left in reversed(range(TRIES)):
        converted = converter.convert(budget)
        pair = (converted.encoder, converted.decoder)
        bundle = write_source(place, source, pair, converted.quantisation, options)
        if photographs is None:
            return converted, []
        small = Captioner(bundle, threads=options.threads)
        checks = check_quantised(right, small, photographs, options.gate)
        if all(check.passed for check in checks):
            return converted, checks
        if not converted.layers or not left:
            break
        budget /= 2
        options.notice(
            f"{'; '.join(str(check) for check in checks)}: again with more layers in float"
        )
    demand(checks, source.name)
    raise AssertionError("a check failed, so _demand has raised")


def _pictures(
    photographs: Photographs | None, size: int, options: ModelOptions
) -> list[npt.NDArray[np.uint8]]:
    if photographs is not None:
        return photographs.pixels(options.parity)
    options.notice(
        f"checked on {GENERATED} generated pictures; give --images FOLDER to check on photographs"
    )
    return no_photographs(GENERATED, size, options.seed)


def _record(
    checks: list[Check],
    photographs: Photographs | None,
    converted: Converted,
    options: ModelOptions,
) -> ExportRecord:
    return ExportRecord(
        verdict="passed" if photographs is not None else "passed on generated pictures",
        checks=tuple(str(check) for check in checks),
        photographs=0 if photographs is None else len(photographs),
        photographs_sha256="" if photographs is None else photographs.sha256,
        float_layers=converted.float_layers,
        command=shlex.join(options.command),
    )


def write_source(
    path: Path,
    source: Source,
    graphs: Pair,
    quantisation: Quantisation | None = None,
    options: ModelOptions | None = None,
    record: ExportRecord | None = None,
) -> Bundle:
    """The bundle of ``source`` with these graphs, unchecked; float32 by default."""
    options = options or ModelOptions()
    import edgecap

    files = {
        "encoder.onnx": graphs[0].SerializeToString(deterministic=True),
        "decoder.onnx": graphs[1].SerializeToString(deterministic=True),
        source.tokenizer.file: source.tokenizer_json,
    }
    tables = [
        describe_graph(open_session(files[file], file, 1), file)
        for file in ("encoder.onnx", "decoder.onnx")
    ]
    manifest = Manifest(
        name=options.name or source.name,
        version=options.version,
        family=source.family,
        created_by=f"edgecap {edgecap.__version__}",
        licence=options.licence or source.licence,
        graphs=Graphs(*tables),
        image=source.image,
        tokenizer=source.tokenizer,
        decoding=source.decoding,
        max_positions=source.max_positions,
        quantisation=quantisation or Quantisation(),
        training_data=options.training_data,
        export=record,
    )
    write_bundle(path, manifest, files)
    return read_bundle(path)
