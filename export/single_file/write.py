"""A bundle as one standard ONNX file: encoder, decoding loop and words in one graph."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from edgecap.export.single_file.loop import DECODER, decoding_loop
from edgecap.export.single_file.nodes import Nodes
from edgecap.export.single_file.outcome import outcome
from edgecap.export.single_file.search import Plan
from edgecap.export.single_file.words import Pieces
from edgecap.runtime.bundle import Bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.options import DecodingOptions, EarlyStopping, SpecialTokens
from edgecap.runtime.engines.onnx import open_session
from edgecap.runtime.engines.threads import thread_count
from edgecap.runtime.errors import BundleError, OptionsError
from edgecap.runtime.files import replacing

if TYPE_CHECKING:
    import onnx

OPSET = 20  # the first with operators on strings
ENCODER = "encoder/"
SUFFIX = ".onnx"
TOLERANCE = 1e-4  # of scores


@dataclass(frozen=True)
class SingleFileOptions:
    """What is baked into the file. Decoding as in ``DecodingOptions``; None is the bundle's own.

    caches : "grow" step by step, which is faster, or "fixed" at K * T slots, as a bundle's own
        runner keeps them: for a decoder graph that needs that size
    """

    beams: int | None = None
    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    length_penalty: float | None = None
    early_stopping: EarlyStopping | None = None
    no_repeat_ngram_size: int | None = None
    repetition_penalty: float | None = None
    num_return_sequences: int | None = None
    suppress_tokens: tuple[int, ...] | None = None
    caches: Literal["grow", "fixed"] = "grow"

    def __post_init__(self) -> None:
        if self.caches not in ("grow", "fixed"):
            raise OptionsError(f"caches is {self.caches!r}; give 'grow' or 'fixed'")

    def decoding(self) -> dict[str, Any]:
        """The options that ``Captioner.options`` takes."""
        return {name: value for name, value in asdict(self).items() if name != "caches"}


def write_single_file(
    bundle: Bundle, path: Path, options: SingleFileOptions = SingleFileOptions()
) -> Path:
    """Write ``bundle`` as one ONNX file of standard operators and give its path.

    in : image uint8 [S, S, 3], RGB, resized as the bundle's manifest says
    out : caption, tokens, length, score, logprobs, confidence, sure and, where the encoder has
        them, features and novelty; see ``Output``

    The file is compared with ``Captioner`` on a few pictures before it is put in place.

    Raises ``OptionsError`` for options out of their range, ``BundleError`` for a bundle whose
    graphs or words have no such form, and for a path that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise OptionsError(f"{path} does not end in {SUFFIX}; give the file a name that does")
    captioner = Captioner(bundle)
    decoding = captioner.options(**options.decoding())
    model = build_model(bundle, decoding, options.caches)
    data = model.SerializeToString(deterministic=True)
    _compare(captioner, decoding, data, path.name)
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise BundleError(f"cannot write {path}: {error.strerror or error}") from None
    return path


def build_model(
    bundle: Bundle, decoding: DecodingOptions, caches: Literal["grow", "fixed"]
) -> onnx.ModelProto:
    """The whole graph, checked."""
    import onnx
    from onnx import TensorProto, compose, helper

    manifest = bundle.manifest
    graphs, special = manifest.graphs, manifest.tokenizer
    files = {ENCODER: graphs.encoder.file, DECODER: graphs.decoder.file}
    protos = {prefix: _standard(bundle.files[file], file) for prefix, file in files.items()}
    opset = max(OPSET, *(_opset(proto) for proto in protos.values()))
    encoder, decoder = (
        compose.add_prefix(_convert(proto, opset, files[prefix]), prefix)
        for prefix, proto in protos.items()
    )
    plan = Plan(
        decoding,
        SpecialTokens(special.bos, special.eos, special.pad),
        min(decoding.max_new_tokens, manifest.max_positions),
        special.vocab_size,
        manifest.max_positions,
        caches == "grow",
    )
    g = Nodes("")
    g("Unsqueeze", "image", g.whole([0]), name=ENCODER + "image")
    g.nodes += encoder.graph.node
    g.constants += encoder.graph.initializer
    encoded = {spec.name: ENCODER + spec.name for spec in graphs.encoder.outputs}
    state = decoding_loop(g, plan, decoder, graphs.decoder, encoded)
    pieces = Pieces(bundle.files[special.file], special)
    outputs = outcome(g, plan, state, pieces, manifest, encoded)
    size = manifest.image.size
    image = helper.make_tensor_value_info(
        "image", TensorProto.UINT8, (size, size, 3), "RGB, resized as metadata says"
    )
    graph = helper.make_graph(
        g.nodes, "captioner", [image], [item.info() for item in outputs], g.constants
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        ir_version=max(
            helper.find_min_ir_version_for(opsets), *(p.ir_version for p in protos.values())
        ),
        producer_name="edgecap",
        doc_string="An image captioner: one picture in, its caption out.",
    )
    helper.set_model_props(model, _metadata(bundle, decoding))
    onnx.checker.check_model(model, full_check=True)
    return model


def _standard(data: bytes, file: str) -> onnx.ModelProto:
    """A graph of standard operators alone."""
    import onnx

    proto = onnx.load_from_string(data)
    domains = {node.domain for node in _all_nodes(proto.graph.node)} - {"", "ai.onnx"}
    if domains or proto.functions:
        odd = sorted(domains) or ["a function of its own"]
        raise BundleError(
            f"{file} uses {odd[0]}, which a stock ONNX Runtime may lack; one file is made of "
            "standard operators alone: export the bundle without"
        )
    return proto


def _all_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterable[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _all_nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _all_nodes(graph.node)


def _opset(proto: onnx.ModelProto) -> int:
    return next(item.version for item in proto.opset_import if item.domain in ("", "ai.onnx"))


def _convert(proto: onnx.ModelProto, opset: int, file: str) -> onnx.ModelProto:
    from onnx import version_converter

    if _opset(proto) == opset:
        return proto
    try:
        return version_converter.convert_version(proto, opset)
    except Exception as error:  # the converter raises many kinds
        line = (str(error).splitlines() or ["unknown reason"])[0]
        raise BundleError(f"{file} has no form in opset {opset}: {line[:200]}") from None


def _metadata(bundle: Bundle, decoding: DecodingOptions) -> dict[str, str]:
    manifest = bundle.manifest
    try:
        digest = hashlib.sha256(bundle.path.read_bytes()).hexdigest()
    except OSError as error:
        raise BundleError(f"{bundle.path} cannot be read: {error.strerror or error}") from None
    image = msgspec.json.encode(manifest.image).decode()
    return {
        "name": manifest.name,
        "version": manifest.version,
        "family": manifest.family,
        "licence": manifest.licence,
        "created_by": manifest.created_by,
        "bundle_sha256": digest,
        "image": image,
        "decoding": json.dumps(asdict(decoding)),
        "quantisation": msgspec.json.encode(manifest.quantisation).decode(),
        "training_data": msgspec.json.encode(manifest.training_data).decode(),
    }


def _compare(captioner: Captioner, decoding: DecodingOptions, data: bytes, name: str) -> None:
    """Run the file and the bundle on two made pictures. Where two sentences are equally good, the
    two may choose differently, so only scores that differ are an error."""
    session = open_session(data, name, thread_count(None))
    outputs = ["caption", "tokens", "length", "score"]
    size = captioner.image_size
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (size, size, 3), np.uint8)
    ramp = np.linspace(0, 255, size, dtype=np.uint8)
    for pixels in (noise, np.stack(np.broadcast_arrays(ramp[:, None], ramp, ramp[::-1]), -1)):
        try:
            caption, tokens, length, score = session.run(outputs, {"image": pixels})
        except Exception as error:  # its exceptions share no base class
            line = (str(error).splitlines() or ["unknown reason"])[0]
            raise BundleError(f"the one graph does not run: {line[:200]}") from None
        expected = captioner.decode(captioner.engine.encode(pixels[None]), decoding)[0]
        text = captioner.tokenizer.decode(tokens[0, : length[0]].tolist())
        if abs(score[0] - expected.score) > TOLERANCE or caption[0] != text:
            raise BundleError(
                f"the one graph says {caption[0]!r} ({score[0]:.4f}) where the bundle says "
                f"{expected.text!r} ({expected.score:.4f}); try caches 'fixed'"
            )
