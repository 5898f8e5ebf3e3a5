"""A data set, a backbone and a recipe so small that a whole run takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

COLOURS = {"red": (200, 20, 20), "green": (20, 180, 20), "blue": (20, 20, 220)}
TRAIN, HELD = 12, 12
RECIPE = """
train: [{data: "flickr8k:DATA/set", split: train}]
validation: [{data: "flickr8k:DATA/set", split: val}]
encoder: ENCODER
min_count: 1
captions: 2
views: 2
licence: none
augment: {crop: 0.9, brightness: 0.0, contrast: 0.0, saturation: 0.0}
model: {width: 48, heads: 4, hidden: 64, max_positions: 8, dropout: 0.0}
options: {epochs: 3, batch: 4, frozen_epochs: 1, warm_up: 2, decoder_rate: 3.0e-3, average: 0.5,
          label_smoothing: 0.0, seed: 3, events: false}
"""
MOBILENET = "{name: mobilenet-edgetpu, weights: WEIGHTS/backbone.safetensors}"


def write_small_project(folder: Path) -> Path:
    """A data set, a random MobileNetEdgeTPU and a recipe that trains on them."""
    import torch
    from safetensors.torch import save_file

    from edgecap.training.models.encoders.mobilenet_edgetpu import MobileNetEdgeTPU

    write_small_set(folder / "set")
    torch.manual_seed(0)
    state = MobileNetEdgeTPU().state_dict()
    state["classifier.weight"] = torch.zeros(1000, 1280)
    state["classifier.bias"] = torch.zeros(1000)
    save_file(state, folder / "backbone.safetensors")
    return _write_recipe(folder, MOBILENET)


def write_smaller_project(folder: Path) -> Path:
    """The same with the encoder of ``small_encoder.py``, which must have been imported."""
    write_small_set(folder / "set")
    return _write_recipe(folder, "{name: small}")


def write_small_set(folder: Path) -> Path:
    """Noisy pictures of one colour, twelve to train on and as many to validate with, and captions
    that name the colour."""
    import cv2

    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(0)
    lines, names = ["image,caption_index,caption"], []
    for i in range(TRAIN + HELD):
        colour = list(COLOURS)[i % 3]
        names.append(f"{i}.png")
        pixels = np.full((64, 64, 3), COLOURS[colour][::-1], np.uint8)
        pixels += generator.integers(0, 20, pixels.shape, np.uint8)
        cv2.imwrite(str(folder / "images" / names[-1]), pixels)
        lines += [f"{names[-1]},{k},this is a {colour} wall {end}" for k, end in enumerate("xy")]
    (folder / "captions.csv").write_text("\n".join(lines))
    (folder / "train.txt").write_text("\n".join(names[:TRAIN]))
    (folder / "val.txt").write_text("\n".join(names[TRAIN:]))
    return folder


def _write_recipe(folder: Path, encoder: str) -> Path:
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.replace("ENCODER", encoder))
    return recipe
