"""The frozen half of an encoder, computed when a batch is asked for: no cache, always a new view.

For sets whose features no disk holds, for encoders that are trained from the first layer, and for
GPUs that see a picture faster than a disk gives its features.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from edgecap.training.augment import AugmentOptions
from edgecap.training.data import CaptionedImage
from edgecap.training.features import FrozenHalf, picture_view
from edgecap.training.models.encoders.base import Frozen


class LiveFeatures:
    """Stands where a :class:`FeatureCache` does.

    views : how many views there are to draw from; every one is a number for the generator, so a
        run that goes on sees the views that it would have seen
    threads : that read and change pictures
    """

    views = 1 << 31

    def __init__(
        self,
        images: Sequence[CaptionedImage],
        frozen: FrozenHalf,
        *,
        image_size: int,
        seed: int,
        augment: AugmentOptions,
        device: torch.device,
        threads: int = 2,
    ) -> None:
        self.images, self.size = images, len(images)
        self._frozen, self._device = frozen, device
        self._options = (image_size, augment, seed)
        self._pool = ThreadPoolExecutor(threads)

    def batch(self, images: npt.NDArray[np.int64], views: npt.NDArray[np.int64]) -> Frozen:
        """Tensors [B, ...] of (image, view) pairs, float32 where they are floats."""
        chosen = list(self._pool.map(self._view, images.tolist(), views.tolist()))
        pixels = torch.from_numpy(np.stack(chosen)).to(self._device)
        # Not inference mode: what comes out is kept for the backward pass.
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16):
            found = self._frozen(pixels)
        return tuple(part.float() if part.is_floating_point() else part for part in found)

    def _view(self, index: int, view: int) -> npt.NDArray[np.uint8]:
        return picture_view(self.images[index], index, view, *self._options)
