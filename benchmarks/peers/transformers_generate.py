"""transformers' own ``generate`` in float32, as most users run it; variant ``compile``: its
forward compiled by torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hub_generate import HubGenerate
from protocol import serve


class TransformersGenerate(HubGenerate):
    packages = ("transformers", "torch")
    variant = "eager"

    def load(self, model: Path, threads: int) -> None:
        import json

        import torch
        import transformers

        torch.set_num_threads(threads)
        config = json.loads((model / "config.json").read_text())
        kinds = {
            "vision-encoder-decoder": "VisionEncoderDecoderModel",
            "blip": "BlipForConditionalGeneration",
        }
        kind = getattr(transformers, kinds[config["model_type"]])
        self.net = kind.from_pretrained(model, dtype=torch.float32).eval()
        self.read_processing(model)
        if self.variant == "compile":
            blip = config["model_type"] == "blip"
            encoder = self.net.vision_model if blip else self.net.encoder
            decoder = self.net.text_decoder if blip else self.net.decoder
            encoder.forward = torch.compile(encoder.forward)
            decoder.forward = torch.compile(decoder.forward, dynamic=True)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        import torch

        with torch.inference_mode():
            return super().caption(pixels, beams, tokens)


if __name__ == "__main__":
    serve(TransformersGenerate)
