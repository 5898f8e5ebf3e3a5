"""Small random decoders of every family that the kernels take, as real bundles."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecap.runtime.bundle import Bundle, read_bundle, write_bundle
from edgecap.runtime.decoding.options import SpecialTokens

VOCAB, POSITIONS = 61, 8
SPECIAL = SpecialTokens(bos=1, eos=2, pad=0)


def _trained(family: str, **options: Any) -> Callable[[Path], Any]:
    def graphs(folder: Path) -> Any:
        import torch
        from tiny_encoder import TinyEncoder

        from edgecap.export.onnx import export_graphs
        from edgecap.training.models.clip_gpt import ClipGpt, ClipGptOptions
        from edgecap.training.models.image_transformer import (
            ImageTransformer,
            ImageTransformerOptions,
        )
        from edgecap.training.models.show_and_tell import ShowAndTell, ShowAndTellOptions
        from edgecap.training.models.show_attend_tell import (
            ShowAttendTell,
            ShowAttendTellOptions,
        )

        kinds: dict[str, Any] = {
            "image-transformer": (ImageTransformer, ImageTransformerOptions),
            "clip-gpt": (ClipGpt, ClipGptOptions),
            "show-and-tell": (ShowAndTell, ShowAndTellOptions),
            "show-attend-tell": (ShowAttendTell, ShowAttendTellOptions),
        }
        model, settings = kinds[family]
        made = model(
            settings(vocab_size=VOCAB, max_positions=POSITIONS, **options), TinyEncoder()
        ).eval()
        generator = torch.Generator().manual_seed(5)
        for name, parameter in made.named_parameters():
            if parameter.ndim == 2:  # large: captions differ between pictures
                parameter.data.normal_(0, 0.5, generator=generator)
            elif "norm" not in name and "ln_" not in name:
                parameter.data.normal_(0, 0.3, generator=generator)
        return export_graphs(made, None)

    return graphs


def _imported(kind: str) -> Callable[[Path], Any]:
    def graphs(folder: Path) -> Any:
        import small_captioners

        from edgecap.export.sources import open_source

        source = folder / kind
        source.mkdir()
        small_captioners.KINDS[kind](source)
        return open_source(str(source)).graphs()

    return graphs


FAMILIES: dict[str, Callable[[Path], Any]] = {
    # Heads of 12 values: no whole vector loads.
    "image-transformer": _trained(
        "image-transformer", width=48, heads=4, hidden=72, decoder_layers=2
    ),
    "clip-gpt": _trained("clip-gpt", width=32, layers=2, heads=2, prefix=3),
    "show-and-tell": _trained("show-and-tell", width=24, hidden=24),
    "show-and-tell-gru": _trained("show-and-tell", cell="gru", width=12, hidden=40, tied=False),
    "show-attend-tell": _trained("show-attend-tell", width=12, hidden=24, annotation=20, scores=40),
    "show-attend-tell-hard": _trained(
        "show-attend-tell",
        attention="hard",
        cell="gru",
        width=12,
        hidden=24,
        annotation=20,
        scores=8,
        tied=False,
    ),
    "vit-gpt2": _imported("vit-gpt2"),
    "blip": _imported("blip"),
    "git": _imported("git"),
    "clip-prefix": _imported("clip-prefix"),
}


def make(folder: Path, family: str) -> Bundle:
    """The bundle of a family; its tokenizer is not that of its vocabulary."""
    with contextlib.redirect_stdout(io.StringIO()):
        encoder, decoder = FAMILIES[family](folder)
    return bundle_of(folder / f"{family}.edgecap", family, encoder, decoder)


def make_dynamic(folder: Path, family: str) -> Bundle:
    """The bundle of a family whose decoder is exported with the precision int8-dynamic."""
    from edgecap.export.precision import Converter, PrecisionOptions

    with contextlib.redirect_stdout(io.StringIO()):
        encoder, decoder = FAMILIES[family](folder)
        made = Converter(encoder, decoder, [], PrecisionOptions("int8-dynamic")).convert().decoder
    return bundle_of(folder / f"{family}-dynamic.edgecap", family, encoder, made)


def bundle_of(path: Path, family: str, encoder: Any, decoder: Any) -> Bundle:
    """Two graphs as a bundle."""
    import tiny_models

    from edgecap.runtime.engines.onnx import describe_graph, open_session
    from edgecap.runtime.manifest import Graphs, ImageSpec, TokenizerSpec

    files = {
        "encoder.onnx": encoder.SerializeToString(),
        "decoder.onnx": decoder.SerializeToString(),
        "tokenizer.json": tiny_models.tokenizer_json(),
    }
    tables = [
        describe_graph(open_session(files[file], file, 1), file)
        for file in ("encoder.onnx", "decoder.onnx")
    ]
    size = int(tables[0].inputs[0].shape[1])
    vocab = next(int(s.shape[1]) for s in tables[1].outputs if s.name == "logits")
    manifest, _ = tiny_models.parts(
        family=family,
        graphs=Graphs(*tables),
        image=ImageSpec(size=size),
        tokenizer=TokenizerSpec(
            file="tokenizer.json", bos=1, eos=2, pad=0, unk=3, vocab_size=vocab
        ),
        max_positions=POSITIONS,
        confidence=None,
    )
    write_bundle(path, manifest, files)
    return read_bundle(path)


def pictures(bundle: Bundle, count: int) -> np.ndarray:
    """Noise, uint8 [count, S, S, 3]."""
    size = bundle.manifest.image.size
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)
