"""What can be exported: a checkpoint of this project, a bundle, a Hugging Face captioner.

All become one ``Source``: its graphs, its tokenizer, how it takes pictures and decodes, and a way
to ask the original what it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecap.export.gate import Reference, tokens
from edgecap.export.onnx import export_graphs
from edgecap.export.quantize import QuantizeOptions
from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.base import Engine
from edgecap.runtime.errors import DataError
from edgecap.runtime.image import RGB, resize_image
from edgecap.runtime.manifest import DecodingDefaults, ImageSpec, Quantisation, TokenizerSpec
from edgecap.training.progress import track
from edgecap.training.validate import SUPPRESSED
from edgecap.training.vocabulary import BOS, EOS, PAD, UNK

if TYPE_CHECKING:
    import onnx

    from edgecap.export.importers.base import Imported

TOKENIZER = "tokenizer.json"
Pair = tuple["onnx.ModelProto", "onnx.ModelProto"]


@dataclass(frozen=True)
class Source:
    """A captioner that can become a bundle.

    graphs : exports or gives the encoder and the decoder in float32
    engine : the original's halves behind the engine contract
    reference : what the original says of photographs: the tokens of each one's best caption at a
        beam width, without BOS, EOS included where it ended
    quantised : how a bundle's weights are stored, where not as floats
    quantize : what a checkpoint was fine-tuned for; the export does just that
    """

    name: str
    family: str
    graphs: Callable[[], Pair]
    engine: Engine
    reference: Reference
    image: ImageSpec
    tokenizer_json: bytes
    tokenizer: TokenizerSpec
    decoding: DecodingDefaults
    max_positions: int
    licence: str = ""
    quantised: str = ""
    quantize: QuantizeOptions | None = None
    notes: tuple[str, ...] = ()


def open_source(source: str, max_new_tokens: int | None = None) -> Source:
    """A checkpoint folder, a bundle's path, a Hugging Face folder or hub id.

    max_new_tokens : longest caption of a Hugging Face captioner; its own setting where None. The
        others have theirs built in

    Raises ``DataError`` for what is none of them.
    """
    path = Path(source).expanduser()
    if path.suffix == ".edgecap" and not path.is_dir():
        return from_bundle(read_bundle(path))
    if (path / "model.json").is_file():
        return from_checkpoint(path)
    if path.is_file():
        raise DataError(
            f"{source} is a file, not a model; give a checkpoint folder, a .edgecap bundle, or "
            "the folder or hub id of a Hugging Face captioner"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise DataError(
            f"{source} is no model: it has neither a model.json (`edgecap train` writes it) nor a "
            "config.json (Hugging Face); give the folder that holds one"
        )
    from edgecap.export.importers import open_source as open_imported

    return from_imported(open_imported(source, max_new_tokens=max_new_tokens))


def from_checkpoint(folder: Path) -> Source:
    """A folder that ``edgecap train`` or ``edgecap quantize`` wrote."""
    from edgecap.training.checkpoint import load_model
    from edgecap.training.torch_engine import TorchEngine

    model, tokenizer_json, meta = load_model(folder)
    engine = TorchEngine(model)
    vocabulary = len(json.loads(tokenizer_json)["model"]["vocab"])
    decoding = DecodingDefaults(
        max_new_tokens=engine.max_positions, suppress_tokens=tuple(SUPPRESSED)
    )
    image = ImageSpec(size=model.image_size)
    special = TokenizerSpec(TOKENIZER, BOS, EOS, PAD, UNK, vocabulary)
    return Source(
        name=folder.resolve().name,
        family=model.family,
        graphs=lambda: export_graphs(model, None),
        engine=engine,
        reference=_searched(engine, image, special, decoding),
        image=image,
        tokenizer_json=tokenizer_json.encode(),
        tokenizer=special,
        decoding=decoding,
        max_positions=engine.max_positions,
        quantize=QuantizeOptions(**meta["quantize"]) if "quantize" in meta else None,
    )


def from_bundle(bundle: Bundle) -> Source:
    """A bundle as it stands; where it is quantised, its graphs are not float32 any more."""
    captioner, manifest = Captioner(bundle), bundle.manifest

    def graphs() -> Pair:
        import onnx

        files = (manifest.graphs.encoder.file, manifest.graphs.decoder.file)
        encoder, decoder = (onnx.load_from_string(bundle.files[file]) for file in files)
        return encoder, decoder

    return Source(
        name=manifest.name,
        family=manifest.family,
        graphs=graphs,
        engine=captioner.engine,
        reference=lambda pictures, beams: tokens(captioner, pictures, beams),
        image=manifest.image,
        tokenizer_json=bundle.files[manifest.tokenizer.file],
        tokenizer=manifest.tokenizer,
        decoding=manifest.decoding,
        max_positions=manifest.max_positions,
        licence=manifest.licence,
        quantised="" if manifest.quantisation == Quantisation() else manifest.quantisation.encoder,
    )


def from_imported(imported: Imported) -> Source:
    """What an importer made of somebody else's captioner."""
    from edgecap.training.torch_engine import TorchEngine

    model: Any = imported.model
    return Source(
        name=imported.name,
        family=imported.family,
        graphs=lambda: export_graphs(model, None),
        engine=TorchEngine(model),
        reference=imported.reference,
        image=imported.image,
        tokenizer_json=imported.tokenizer_json,
        tokenizer=msgspec.structs.replace(imported.tokenizer, file=TOKENIZER),
        decoding=imported.decoding,
        max_positions=model.options.max_positions,
        licence=imported.licence,
        notes=imported.notes,
    )


def _searched(
    engine: Engine, image: ImageSpec, special: TokenizerSpec, decoding: DecodingDefaults
) -> Reference:
    """The original's captions by the one beam search, its halves run by ``engine``."""
    ids = SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)
    defaults = msgspec.structs.asdict(decoding)

    def reference(pictures: Sequence[RGB], beams: int) -> list[list[int]]:
        options = DecodingOptions(**{**defaults, "beams": beams})
        found = []
        for picture in track(pictures, f"source, {beams} beams"):
            encoded = engine.encode(resize_image(picture, image)[None])
            best = generate(engine, encoded, options, ids).hypotheses[0][0]
            found.append([int(token) for token in best.tokens])
        return found

    return reference
