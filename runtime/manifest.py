"""The manifest of a model bundle: what it holds, what its graphs take and give, what was measured.

Fields a later minor version adds are ignored; a newer ``schema_version`` is refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from edgecap.runtime.decoding.options import DecodingOptions, EarlyStopping
from edgecap.runtime.errors import BundleError, OptionsError

SCHEMA_VERSION = 1

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class FileEntry(msgspec.Struct, frozen=True):
    """Checksum and size of one file of the bundle."""

    sha256: Sha256
    bytes: NotNegative


class TensorSpec(msgspec.Struct, frozen=True):
    """One graph input or output; a dimension that varies is a name such as ``"B"``."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class GraphSpec(msgspec.Struct, frozen=True):
    """The I/O table of one graph."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Graphs(msgspec.Struct, frozen=True):
    """The two graphs of the contract."""

    encoder: GraphSpec
    decoder: GraphSpec


class ImageSpec(msgspec.Struct, frozen=True):
    """How a picture becomes the encoder's input, uint8 [size, size, 3].

    resize : "squash" makes both sides ``resize_to``; "crop" makes the shorter side that long and
        keeps the aspect. Of what is larger than ``size`` the centre is cut out
    resize_to : ``size`` where None
    resample : "area" averages areas (OpenCV); "bilinear", "bicubic" and "lanczos" are Pillow's,
        with its antialiasing, and need Pillow
    """

    size: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    resize: Literal["squash", "crop"] = "squash"
    channels: Literal["RGB"] = "RGB"
    resize_to: Annotated[int, msgspec.Meta(ge=1, le=4096)] | None = None
    resample: Literal["area", "bilinear", "bicubic", "lanczos"] = "area"

    @property
    def side(self) -> int:
        """The side that a picture is resized to before its centre is cut out."""
        return self.resize_to or self.size


class TokenizerSpec(msgspec.Struct, frozen=True):
    """The tokenizer file and the ids with a meaning."""

    file: str
    bos: NotNegative
    eos: NotNegative
    pad: NotNegative
    unk: NotNegative
    vocab_size: Positive


class DecodingDefaults(msgspec.Struct, frozen=True):
    """Decoding options where the caller gives none; meanings as in ``DecodingOptions``."""

    beams: int = 4
    max_new_tokens: int = 20
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    suppress_tokens: tuple[int, ...] = ()


class Quantisation(msgspec.Struct, frozen=True):
    """How the weights are stored and computed, e.g. ``"int8 QDQ"`` or ``"float32"``."""

    encoder: str = "float32"
    decoder: str = "float32"
    notes: str = ""


class ConfidenceSpec(msgspec.Struct, frozen=True):
    """Logistic confidence: sigmoid(intercept + sum of weight * feature); see ``confidence``."""

    intercept: float
    weights: dict[str, float]
    floor: Annotated[float, msgspec.Meta(ge=0, le=1)]
    fitted_on: str = ""
    quality: dict[str, float] = {}  # what the fit reached, e.g. expected calibration error


class ExportRecord(msgspec.Struct, frozen=True):
    """How the export was proven: every figure with its bound, and on what.

    photographs_sha256 : of their pixels, in their order; empty where none were given
    float_layers : of the encoder that were left in float, since int8 cost too much
    """

    verdict: str
    checks: tuple[str, ...] = ()
    photographs: NotNegative = 0
    photographs_sha256: str = ""
    float_layers: tuple[str, ...] = ()
    command: str = ""


class DataEntry(msgspec.Struct, frozen=True):
    """One data set the model was trained on."""

    name: str
    licence: str
    use: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a bundle says about itself. ``files`` is filled in by ``write_bundle``."""

    schema_version: int = SCHEMA_VERSION
    name: str
    version: str
    family: str
    created_by: str = ""
    licence: str
    files: dict[str, FileEntry] = {}
    graphs: Graphs
    image: ImageSpec
    tokenizer: TokenizerSpec
    decoding: DecodingDefaults = DecodingDefaults()
    max_positions: Positive
    quantisation: Quantisation = Quantisation()
    confidence: ConfidenceSpec | None = None
    # data set -> split -> precision -> metric -> value
    metrics: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    training_data: tuple[DataEntry, ...] = ()
    provenance: dict[str, str] = {}
    export: ExportRecord | None = None


class _Version(msgspec.Struct):
    schema_version: int


def decode_manifest(data: bytes) -> Manifest:
    """Parse and check ``manifest.json``.

    Raises ``BundleError`` for JSON that is broken, a field of a wrong type (with its JSON path), a
    newer schema, or values that contradict each other.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"schema_version is {version}, this EdgeCap reads up to {SCHEMA_VERSION}; "
                "upgrade edgecap"
            )
        if version < 1:
            raise BundleError(f"schema_version is {version}; the first one is 1")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"manifest.json cannot be read: {error}") from None
    _check(manifest)
    return manifest


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as indented UTF-8 JSON, after the checks that reading makes."""
    data = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    decode_manifest(data)
    return data


def to_dict(manifest: Manifest) -> dict[str, Any]:
    """JSON-ready dictionary with every field."""
    result: dict[str, Any] = msgspec.to_builtins(manifest)
    return result


def _check(manifest: Manifest) -> None:
    for role, file in referenced_files(manifest).items():
        if manifest.files and file not in manifest.files:
            raise BundleError(f"{role} names the file {file!r}, which the table of files lacks")
    image = manifest.image
    if image.side < image.size:
        raise BundleError(
            f"image.resize_to is {image.resize_to}, less than image.size, {image.size}: there is "
            "nothing to cut out"
        )
    tokenizer, vocab = manifest.tokenizer, manifest.tokenizer.vocab_size
    for name in ("bos", "eos", "pad", "unk"):
        if getattr(tokenizer, name) >= vocab:
            raise BundleError(
                f"tokenizer.{name} is {getattr(tokenizer, name)}; ids end at {vocab - 1}"
            )
    if any(token >= vocab for token in manifest.decoding.suppress_tokens):
        raise BundleError(f"decoding.suppress_tokens has an id past the last one, {vocab - 1}")
    if manifest.decoding.max_new_tokens > manifest.max_positions:
        raise BundleError(
            f"decoding.max_new_tokens is {manifest.decoding.max_new_tokens}, more than "
            f"max_positions, {manifest.max_positions}"
        )
    try:
        DecodingOptions(**msgspec.structs.asdict(manifest.decoding))
    except OptionsError as error:
        raise BundleError(f"decoding defaults: {error}") from None


def referenced_files(manifest: Manifest) -> dict[str, str]:
    """The part of the manifest that names a file -> that file's name."""
    return {
        "graphs.encoder": manifest.graphs.encoder.file,
        "graphs.decoder": manifest.graphs.decoder.file,
        "tokenizer": manifest.tokenizer.file,
    }
