"""optimum-intel: ``OVModelForVision2Seq`` with its own ``generate``, exported on the first run."""

from __future__ import annotations

from pathlib import Path

from hub_generate import HubGenerate
from protocol import serve


class OptimumOpenVino(HubGenerate):
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
        self.read_processing(model)


if __name__ == "__main__":
    serve(OptimumOpenVino)
