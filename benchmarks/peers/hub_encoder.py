"""The picture's half of a ViT-GPT2 as one ONNX graph: for peers that have no ViT of their own.

    python benchmarks/peers/hub_encoder.py build/peers/vit-gpt2

Writes NAME-encoder.onnx beside it: ``image`` uint8 [1, S, S, 3] -> ``hidden`` float [1, N, D].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


def hidden_graph(folder: Path) -> Any:
    """The encoder of the model in ``folder``, scaling and normalisation inside."""
    import torch
    import transformers

    from edgecap.export.onnx import export_module

    net = transformers.VisionEncoderDecoderModel.from_pretrained(folder, dtype=torch.float32).eval()
    processing = json.loads((folder / "preprocessor_config.json").read_text())

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = net.encoder
            for name in ("mean", "std"):
                values = torch.tensor(processing[f"image_{name}"]).view(1, 3, 1, 1)
                self.register_buffer(name, values)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            values = image.permute(0, 3, 1, 2).float() / 255
            return self.body((values - self.mean) / self.std).last_hidden_state

    side = processing["size"]["height"]
    image = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    return export_module(Hidden().eval(), (image,), ["image"], ["hidden"], ({},))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write the graph of the model in FOLDER."""
    out = folder.with_name(f"{folder.name}-encoder.onnx")
    out.write_bytes(hidden_graph(folder).SerializeToString())
    click.echo(f"{out}: {out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
