"""Captioners with random weights for timing decoders: a small ViT and GPT-2 with cross-attention.

    python benchmarks/gpu/models.py gpt2 build/gpu/gpt2

Times do not depend on what the weights are. The decoder of "30m" has 30 M parameters; that of
"gpt2" has GPT-2's own 124 M and 28 M of cross-attention. "tiny" is for trying the scripts out.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

TOKENS = 16


@dataclass(frozen=True)
class Size:
    layers: int
    width: int
    heads: int
    vocab: int


SIZES = {
    "tiny": Size(2, 32, 2, 203),
    "30m": Size(6, 512, 8, 10_000),
    "gpt2": Size(12, 768, 12, 50_257),
}


def make(name: str, folder: Path) -> Path:
    """Write the model to ``folder`` and its float bundle beside it; gives the bundle's path."""
    bundle = folder.with_suffix(".edgecap")
    if bundle.exists():
        return bundle
    peers = _peers()
    peers.MODELS[name] = lambda path: _model(name, path, peers)
    peers.make(name, folder)
    from edgecap.export.model import write_source
    from edgecap.export.precision import Converter, PrecisionOptions
    from edgecap.export.sources import open_source

    source = open_source(str(folder), max_new_tokens=TOKENS)
    made = Converter(*source.graphs(), [], PrecisionOptions("fp32")).convert()
    write_source(bundle, source, (made.encoder, made.decoder), made.quantisation)
    return bundle


def _model(name: str, folder: Path, peers: Any) -> Any:
    import transformers

    size = SIZES[name]
    vision = transformers.ViTConfig(
        image_size=112, hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=128,
    )  # fmt: skip
    text = transformers.GPT2Config(
        vocab_size=size.vocab, n_embd=size.width, n_layer=size.layers, n_head=size.heads,
        n_positions=64, add_cross_attention=True, is_decoder=True,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
    model = transformers.VisionEncoderDecoderModel(config)
    end = size.vocab - 1
    model.generation_config = transformers.GenerationConfig(
        decoder_start_token_id=end, bos_token_id=end, eos_token_id=end, pad_token_id=end,
        num_beams=4, max_length=TOKENS + 1,
    )  # fmt: skip
    peers._words(folder, size.vocab, end="<|endoftext|>")
    peers._pixels(folder, "ViTImageProcessor", 0.5, 0.5, side=112)
    return model


def _peers() -> Any:
    """benchmarks/peers/models.py, whose name is this file's, too."""
    path = Path(__file__).parents[1] / "peers" / "models.py"
    spec = importlib.util.spec_from_file_location("peer_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@click.command()
@click.argument("name", type=click.Choice([*SIZES]))
@click.argument("folder", type=click.Path(path_type=Path))
def main(name: str, folder: Path) -> None:
    """Make the model NAME in FOLDER, and FOLDER.edgecap."""
    click.echo(str(make(name, folder)))


if __name__ == "__main__":
    main()
