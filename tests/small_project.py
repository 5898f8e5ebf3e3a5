"""A data set, a backbone and a recipe so small that a whole run takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

COLOURS = {"red": (200, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220)}
RECIPE = """
train: [{data: "flickr8k:DATA/set", split: train}]
validation: [{data: "flickr8k:DATA/set", split: train}]
encoder: {name: mobilenet-edgetpu, weights: WEIGHTS/backbone.safetensors}
min_count: 1
captions: 2
views: 2
licence: none
augment: {crop: 0.9, brightness: 0.0, contrast: 0.0, saturation: 0.0}
model: {width: 48, heads: 4, hidden: 64, max_positions: 8, dropout: 0.0}
options: {epochs: 3, batch: 4, frozen_epochs: 1, warm_up: 2, decoder_rate: 3.0e-3, average: 0.5,
          label_smoothing: 0.0, seed: 3}
"""


def write_small_project(folder: Path) -> Path:
    """Twelve flat pictures with captions that name their colour, a random backbone, a recipe."""
    import cv2
    import torch
    from safetensors.torch import save_file

    from edgecap.training.models.encoders.mobilenet_edgetpu import MobileNetEdgeTPU

    (folder / "set" / "images").mkdir(parents=True)
    lines, names = ["image,caption_index,caption"], []
    for i in range(12):
        colour = list(COLOURS)[i % 3]
        names.append(f"{i}.png")
        pixels = np.full((64, 64, 3), COLOURS[colour][::-1], np.uint8)
        cv2.imwrite(str(folder / "set" / "images" / names[-1]), pixels)
        lines += [f"{names[-1]},{k},this is a {colour} wall {end}" for k, end in enumerate("xy")]
    (folder / "set" / "captions.csv").write_text("\n".join(lines))
    (folder / "set" / "train.txt").write_text("\n".join(names))
    torch.manual_seed(0)
    state = MobileNetEdgeTPU().state_dict()
    state["classifier.weight"] = torch.zeros(1000, 1280)
    state["classifier.bias"] = torch.zeros(1000)
    save_file(state, folder / "backbone.safetensors")
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE)
    return recipe
