"""optimum-onnx: ``ORTModelForVision2Seq``, exported on the first run (kept beside the model)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from protocol import serve


class OptimumOnnx:
    packages = ("optimum-onnx", "optimum", "onnxruntime", "transformers", "torch")

    def load(self, model: Path, threads: int) -> None:
        import onnxruntime
        import torch
        from optimum.onnxruntime import ORTModelForVision2Seq

        torch.set_num_threads(threads)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        kept = model.with_name(model.name + "-optimum")
        if not (kept / "config.json").is_file():
            exported = ORTModelForVision2Seq.from_pretrained(model, export=True, use_cache=True)
            exported.save_pretrained(kept)
        self.net = ORTModelForVision2Seq.from_pretrained(
            kept, session_options=options, use_cache=True
        )
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
    serve(OptimumOnnx)
