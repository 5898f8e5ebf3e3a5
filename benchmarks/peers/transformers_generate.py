"""transformers' own ``generate`` in float32, as most users run it; variant ``compile``: its
forward compiled by torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol import serve


class TransformersGenerate:
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
        processing = json.loads((model / "preprocessor_config.json").read_text())
        self.mean = torch.tensor(processing["image_mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(processing["image_std"]).view(1, 3, 1, 1)
        if self.variant == "compile":
            blip = config["model_type"] == "blip"
            encoder = self.net.vision_model if blip else self.net.encoder
            decoder = self.net.text_decoder if blip else self.net.decoder
            encoder.forward = torch.compile(encoder.forward)
            decoder.forward = torch.compile(decoder.forward, dynamic=True)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        import torch

        values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            said = self.net.generate(
                pixel_values=(values - self.mean) / self.std,
                num_beams=beams,
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
            )
        return [int(token) for token in said[0][-tokens:]]


if __name__ == "__main__":
    serve(TransformersGenerate)
