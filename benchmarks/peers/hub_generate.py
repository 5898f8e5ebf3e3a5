"""What runs under transformers' ``generate``: pixels normalised as the model's folder says, and the
search with exactly so many tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


class HubGenerate:
    """``net`` is what a peer's ``load`` made; it calls ``read_processing``, too."""

    net: Any

    def read_processing(self, model: Path) -> None:
        """Mean and deviation of pixels, from the folder of the model."""
        import torch

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
