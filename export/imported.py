"""An imported captioner as a float bundle, checked graphs and all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgecap.export.importers.base import Imported
from edgecap.export.onnx import export_graphs
from edgecap.runtime.bundle import Bundle, read_bundle, write_bundle
from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.manifest import Graphs, Manifest

if TYPE_CHECKING:
    import onnx


def write_imported(
    imported: Imported, path: str | os.PathLike[str], *, version: str = "1"
) -> Bundle:
    """Export the two graphs in float32 and write the bundle. Raises BundleError."""
    encoder, decoder = export_graphs(imported.model, None)
    manifest = imported_manifest(imported, encoder, decoder, version=version)
    files = {
        "encoder.onnx": encoder.SerializeToString(deterministic=True),
        "decoder.onnx": decoder.SerializeToString(deterministic=True),
        "tokenizer.json": imported.tokenizer_json,
    }
    write_bundle(path, manifest, files)
    return read_bundle(path)


def imported_manifest(
    imported: Imported,
    encoder: onnx.ModelProto,
    decoder: onnx.ModelProto,
    *,
    version: str = "1",
) -> Manifest:
    """What the bundle of these graphs says about itself; the caller may replace fields."""
    import edgecap

    graphs = [
        describe_graph(open_session(proto.SerializeToString(), file, 1), file)
        for proto, file in ((encoder, "encoder.onnx"), (decoder, "decoder.onnx"))
    ]
    return Manifest(
        name=imported.name,
        version=version,
        family=imported.family,
        created_by=f"edgecap {edgecap.__version__}",
        licence=imported.licence,
        graphs=Graphs(*graphs),
        image=imported.image,
        tokenizer=imported.tokenizer,
        decoding=imported.decoding,
        max_positions=imported.model.options.max_positions,
        provenance={"source": imported.name},
    )
