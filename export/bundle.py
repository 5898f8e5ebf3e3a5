"""Checkpoint -> bundle: float graphs, quantised graphs, calibrated confidence, measured scores."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from edgecap.export.graphs import NoveltyHead
from edgecap.export.onnx import export_graphs
from edgecap.export.quantize import (
    QuantizeOptions,
    quantisation_of,
    quantize_as_tuned,
    quantize_decoder,
)
from edgecap.export.quantized_trunk import calibration_pictures
from edgecap.runtime.bundle import Bundle, read_bundle, write_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.onnx import describe_graph, open_session
from edgecap.runtime.manifest import (
    DataEntry,
    DecodingDefaults,
    Graphs,
    ImageSpec,
    Manifest,
    TokenizerSpec,
)
from edgecap.training.checkpoint import load_model
from edgecap.training.data import CaptionedImage
from edgecap.training.models.base import CaptionModel
from edgecap.training.no_photographs import no_photographs
from edgecap.training.progress import track
from edgecap.training.validate import SUPPRESSED
from edgecap.training.vocabulary import BOS, EOS, PAD, UNK

if TYPE_CHECKING:
    import onnx

BATCH = 16


@dataclass(frozen=True)
class ExportOptions:
    """What the manifest says of the model, and how much data the export looks at."""

    name: str = "default"
    version: str = "1"
    licence: str = ""
    decoding: DecodingDefaults = field(
        default_factory=lambda: DecodingDefaults(suppress_tokens=SUPPRESSED)
    )
    calibration_images: int = 128
    novelty_images: int = 3000  # photographs; half as many pictures that are none are made
    quantize: QuantizeOptions = field(default_factory=QuantizeOptions)
    training_data: tuple[DataEntry, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    budget: float = 0.0  # above 0: see ``QuantizeOptions``; also for fine-tuned checkpoints


def export_bundles(
    checkpoint: Path,
    images: Sequence[CaptionedImage],
    float_out: Path,
    int8_out: Path,
    options: ExportOptions,
    float_checkpoint: Path | None = None,
) -> tuple[Bundle, Bundle]:
    """Write the float and the int8 bundle of a checkpoint folder.

    images : training photographs, for the novelty head and the activation ranges
    float_checkpoint : where ``checkpoint`` was fine-tuned for int8, the model it comes from: the
        float bundle is made of that one

    A checkpoint that says what it was fine-tuned for is quantised so, whatever ``quantize`` says.

    Confidence and scores are added later, by measuring these very bundles.
    """
    loaded = load_model(checkpoint)
    size, seed = loaded[0].image_size, options.seed
    # The first of them are the calibration pictures: the order is the same.
    photographs = calibration_pictures(images, size, options.novelty_images, seed)
    others = no_photographs(len(photographs) // 2, size, seed)
    manifest, encoder, decoder = _float_graphs(loaded, photographs, others, options)
    tokenizer = loaded[1].encode()
    if float_checkpoint is None:
        write_bundle(float_out, manifest, _files(encoder, decoder, tokenizer))
    else:
        teacher = load_model(float_checkpoint)
        graphs = _float_graphs(teacher, photographs, others, options)
        write_bundle(float_out, graphs[0], _files(graphs[1], graphs[2], teacher[1].encode()))
    meta = loaded[2]
    quantize = QuantizeOptions(**meta["quantize"]) if "quantize" in meta else options.quantize
    if options.budget:
        quantize = replace(quantize, budget=options.budget)
    calibration = photographs[: options.calibration_images]
    quantised = quantize_as_tuned(encoder, calibration, quantize)
    small_decoder, text = quantize_decoder(decoder)
    small = msgspec.structs.replace(manifest, quantisation=quantisation_of(quantize, text))
    files = _files(quantised, small_decoder, tokenizer)
    write_bundle(int8_out, small, files)
    return read_bundle(float_out), read_bundle(int8_out)


def _float_graphs(
    loaded: tuple[CaptionModel, str, dict[str, Any]],
    photographs: Sequence[npt.NDArray[np.uint8]],
    others: Sequence[npt.NDArray[np.uint8]],
    options: ExportOptions,
) -> tuple[Manifest, onnx.ModelProto, onnx.ModelProto]:
    """Manifest and the two graphs of what ``load_model`` gives, novelty head included."""
    model, tokenizer_json, meta = loaded
    novelty = NoveltyHead.fit(pooled_features(model, photographs), pooled_features(model, others))
    encoder, decoder = export_graphs(model, novelty)
    manifest = _manifest(model, tokenizer_json, meta, encoder, decoder, options)
    return manifest, encoder, decoder


def pooled_features(model: CaptionModel, pictures: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
    """One vector a picture, float32 [N, F], computed in bfloat16: training computed its own so."""
    model = copy.deepcopy(model)
    # Convolutions of a CPU run channels last twice as fast in bfloat16.
    model.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = []
    for start in track(range(0, len(pictures), BATCH), "features"):
        pixels = np.stack(pictures[start : start + BATCH])
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            parts.append(model.encode(model.frozen(torch.from_numpy(pixels))).pooled.float())
    return torch.cat(parts)


def replace_manifest(bundle: Bundle, manifest: Manifest) -> Captioner:
    """Write ``bundle`` again with another manifest and open it."""
    write_bundle(bundle.path, manifest, bundle.files)
    return Captioner(bundle.path)


def _files(
    encoder: onnx.ModelProto, decoder: onnx.ModelProto, tokenizer: bytes
) -> dict[str, bytes]:
    return {
        "encoder.onnx": encoder.SerializeToString(deterministic=True),
        "decoder.onnx": decoder.SerializeToString(deterministic=True),
        "tokenizer.json": tokenizer,
    }


def _manifest(
    model: CaptionModel,
    tokenizer_json: str,
    meta: dict[str, object],
    encoder: onnx.ModelProto,
    decoder: onnx.ModelProto,
    options: ExportOptions,
) -> Manifest:
    import edgecap

    vocab = len(json.loads(tokenizer_json)["model"]["vocab"])
    graphs = [
        describe_graph(open_session(proto.SerializeToString(), file, 1), file)
        for proto, file in ((encoder, "encoder.onnx"), (decoder, "decoder.onnx"))
    ]
    decoding = msgspec.structs.replace(options.decoding, max_new_tokens=model.options.max_positions)
    return Manifest(
        name=options.name,
        version=options.version,
        family=model.family,
        created_by=f"edgecap {edgecap.__version__}",
        licence=options.licence,
        graphs=Graphs(*graphs),
        image=ImageSpec(size=model.image_size),
        tokenizer=TokenizerSpec("tokenizer.json", BOS, EOS, PAD, UNK, vocab),
        decoding=decoding,
        max_positions=model.options.max_positions,
        training_data=options.training_data,
        provenance={**options.provenance, "checkpoint": json.dumps(meta)},
    )
