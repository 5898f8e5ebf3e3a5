"""EdgeCap: a bundle of any precision, as ``edgecap.load`` opens it. Variant: an engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol import serve


class EdgeCapBundle:
    packages = ("edgecap", "onnxruntime")
    variant = "auto"

    def load(self, model: Path, threads: int) -> None:
        import edgecap

        self.captioner = edgecap.load(model, threads=threads, engine=self.variant)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        captioner = self.captioner
        options = captioner.options(beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)
        encoded = captioner.engine.encode(pixels[None])
        found = captioner.search(encoded, options)
        self.step_ms = found.step_ms / found.steps
        return list(found.hypotheses[0][0].tokens)


if __name__ == "__main__":
    serve(EdgeCapBundle)
