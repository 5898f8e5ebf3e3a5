"""onnxruntime-genai: asked to open a model of this architecture; it answers with what it takes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from protocol import serve


class GenAi:
    packages = ("onnxruntime-genai",)

    def load(self, model: Path, threads: int) -> None:
        import onnxruntime_genai

        config = model / "config.json"
        kind = json.loads(config.read_text())["model_type"] if config.is_file() else model.name
        with tempfile.TemporaryDirectory() as folder:
            asked = {"model": {"type": kind, "context_length": 64, "vocab_size": 8,
                               "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
                               "decoder": {"filename": "decoder.onnx"}},
                     "search": {"max_length": 16}}  # fmt: skip
            (Path(folder) / "genai_config.json").write_text(json.dumps(asked))
            self.model = onnxruntime_genai.Model(folder)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        raise TypeError("its model types have no decoder that attends over the states of a picture")


if __name__ == "__main__":
    serve(GenAi)
