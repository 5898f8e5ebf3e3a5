"""Random views of a photograph for training. Mild on purpose: a caption must stay true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecap.runtime.image import resize_image

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class AugmentOptions:
    """Ranges of the random changes; a caption's colours, counts and objects survive them."""

    crop: float = 0.78  # the smallest kept part of each axis
    flip: float = 0.5  # probability
    brightness: float = 0.2  # +- this part of the range
    contrast: float = 0.2
    saturation: float = 0.2


def random_view(
    pixels: Pixels, size: int, generator: np.random.Generator, options: AugmentOptions
) -> Pixels:
    """Crop, flip and colour-jitter uint8 [H, W, 3] RGB, squashed to [size, size, 3]."""
    height, width = pixels.shape[:2]
    kept_h = max(1, round(height * generator.uniform(options.crop, 1.0)))
    kept_w = max(1, round(width * generator.uniform(options.crop, 1.0)))
    top = int(generator.integers(0, height - kept_h + 1))
    left = int(generator.integers(0, width - kept_w + 1))
    view = resize_image(pixels[top : top + kept_h, left : left + kept_w], size)
    if generator.random() < options.flip:
        view = view[:, ::-1]
    return _jitter(view, generator, options)


def _jitter(view: Pixels, generator: np.random.Generator, options: AugmentOptions) -> Pixels:
    x = view.astype(np.float32)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    saturation = 1 + generator.uniform(-options.saturation, options.saturation)
    x = grey[..., None] + saturation * (x - grey[..., None])
    mean = float(grey.mean())
    x = mean + (1 + generator.uniform(-options.contrast, options.contrast)) * (x - mean)
    x *= 1 + generator.uniform(-options.brightness, options.brightness)
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)
