"""optimum-onnx: ``ORTModelForVision2Seq``, exported on the first run (kept beside the model)."""

from __future__ import annotations

from pathlib import Path

from hub_generate import HubGenerate
from protocol import serve


class OptimumOnnx(HubGenerate):
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
        self.read_processing(model)


if __name__ == "__main__":
    serve(OptimumOnnx)
