"""One small bundle of every family, float and quantised, exported once for all tests here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZE = 32
CLIP = {"image_size": SIZE, "patch": 16, "width": 32, "depth": 1, "heads": 2, "hidden": 48}
CLIP |= {"projection": 24}
OPTIONS: dict[str, dict[str, Any]] = {
    "image-transformer": {"width": 48, "heads": 4, "hidden": 64, "decoder_layers": 1},
    "show-and-tell": {"cell": "lstm", "width": 24, "hidden": 24},
    "show-attend-tell": {
        **{"cell": "gru", "attention": "hard", "width": 24, "hidden": 40},
        **{"annotation": 16, "scores": 12, "tied": False},
    },
    "clip-gpt": {
        **{"width": 48, "layers": 1, "heads": 4, "prefix": 5, "mapper": "transformer"},
        **{"mapper_tokens": 3, "mapper_layers": 1, "mapper_heads": 4},
    },
}


@dataclass(frozen=True)
class Small:
    """A family's float bundle, and the same with its encoder quantised."""

    exact: Any
    quantised: Any
    pictures: np.ndarray  # uint8 [4, SIZE, SIZE, 3]


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Small]:
    """Family -> its small bundles."""
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    import small_encoder  # noqa: F401  (adds itself to the table of encoders)

    folder = tmp_path_factory.mktemp("families")
    return {family: make(folder, family) for family in OPTIONS}


def make(folder: Path, family: str) -> Small:
    import tiny_models
    import torch

    from edgecap.export.graphs import NoveltyHead
    from edgecap.export.onnx import export_graphs
    from edgecap.export.quantize import QuantizeOptions, quantize_encoder, store_weights_int8
    from edgecap.runtime.bundle import read_bundle, write_bundle
    from edgecap.runtime.engines.onnx import describe_graph, open_session
    from edgecap.runtime.manifest import Graphs, ImageSpec
    from edgecap.training.models import make_model
    from edgecap.training.models.encoders.base import EncoderOptions

    torch.manual_seed(3)
    encoder = EncoderOptions("small")
    if family == "clip-gpt":
        encoder = EncoderOptions("clip-vision", settings=CLIP, tuned_from=3)
    options = {"vocab_size": tiny_models.VOCAB, "max_positions": 8, **OPTIONS[family]}
    model = make_model(family, encoder, options)
    novelty = NoveltyHead(torch.randn(model.backbone.features), torch.zeros(()))
    graphs = export_graphs(model, novelty)
    pictures = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    static = QuantizeOptions(static=True, float_first=0, float_last=0, matmuls=True)
    small = store_weights_int8(quantize_encoder(graphs[0], list(pictures), static))
    made = []
    for name, encoder_graph, decoder_graph in (
        ("float", *graphs),
        ("int8", small, store_weights_int8(graphs[1])),
    ):
        files = {
            "encoder.onnx": encoder_graph.SerializeToString(),
            "decoder.onnx": decoder_graph.SerializeToString(),
            "tokenizer.json": tiny_models.tokenizer_json(),
        }
        tables = [
            describe_graph(open_session(files[file], file, 1), file)
            for file in ("encoder.onnx", "decoder.onnx")
        ]
        manifest, _ = tiny_models.parts(
            family=family,
            graphs=Graphs(*tables),
            image=ImageSpec(size=SIZE),
            max_positions=8,
            confidence=None,
        )
        path = folder / f"{family}-{name}.edgecap"
        write_bundle(path, manifest, files)
        made.append(read_bundle(path))
    return Small(*made, pictures)
