"""optimum-intel: ``OVModelForVision2Seq`` with its own ``generate``, exported on the first run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from protocol import serve


class OptimumOpenVino:
    packages = ("optimum-intel", "optimum", "openvino", "transformers", "torch")
    variant = "f32"

    def load(self, model: Path, threads: int) -> None:
        import torch
        from optimum.intel import OVModelForVision2Seq

        torch.set_num_threads(threads)
        kept = model.with_name(model.name + "-optimum-intel")
        if not (kept / "config.json").is_file():
            made = OVModelForVision2Seq.from_pretrained(model, export=True, compile=False)
            made.save_pretrained(kept)
        hints = {
            "INFERENCE_PRECISION_HINT": self.variant,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        self.net = OVModelForVision2Seq.from_pretrained(kept, ov_config=hints)
        processing = json.loads((model / "preprocessor_config.json").read_text())
        self.mean = torch.tensor(processing["image_mean"]).view(1, 3, 1, 1)
        self.std = torch.tensor(processing["image_std"]).view(1, 3, 1, 1)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        import torch

        values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        said = self.net.generate(
            pixel_values=(values - self.mean) / self.std,
            num_beams=beams,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        return [int(token) for token in said[0][-tokens:]]


if __name__ == "__main__":
    serve(OptimumOpenVino)
