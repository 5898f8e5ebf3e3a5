"""EdgeCap: a bundle, whichever precision it is in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from protocol import serve


class EdgeCapBundle:
    packages = ("edgecap", "onnxruntime")

    def load(self, model: Path, threads: int) -> None:
        import edgecap

        self.captioner = edgecap.load(model, threads=threads)

    def caption(self, pixels: np.ndarray, beams: int, tokens: int) -> list[int]:
        captioner = self.captioner
        options = captioner.options(beams=beams, max_new_tokens=tokens, min_new_tokens=tokens)
        encoded = captioner.engine.encode(pixels[None])
        return list(captioner.search(encoded, options).hypotheses[0][0].tokens)


if __name__ == "__main__":
    serve(EdgeCapBundle)
