"""Which places of a picture a caption's words depend on, for any bundle (Zeiler and Fergus 2014).

A grey square covers one place of the picture after another. Where a word's log-probability falls,
what is under the square spoke for that word. No weights are looked at, so it works for every
family and precision, and it needs no more than the runtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecap.runtime.captioner import MAX_BATCH, Captioner
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.engines.base import Encoded, Engine
from edgecap.runtime.errors import OptionsError
from edgecap.runtime.image import RGB, ImageLike, load_image
from edgecap.runtime.words import group_tokens

MAX_SIDE = 28


@dataclass(frozen=True)
class OcclusionOptions:
    """side : places a side, 2 to 28; the picture is encoded side * side times
    cover : side of the square, in places
    """

    side: int = 8
    cover: float = 2.0

    def __post_init__(self) -> None:
        if not isinstance(self.side, int) or not 2 <= self.side <= MAX_SIDE:
            raise OptionsError(f"side is {self.side!r}; give a whole number from 2 to {MAX_SIDE}")
        if not 0 < self.cover <= self.side:
            raise OptionsError(f"cover is {self.cover!r}; give a number above 0, up to {self.side}")


def occlusion_maps(
    captioner: Captioner,
    image: ImageLike,
    *,
    channels: str | None = None,
    options: OcclusionOptions | None = None,
    decoding: DecodingOptions | None = None,
) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Caption a picture and tell for each word where the picture speaks for it.

    image, channels : as in ``Captioner.__call__``
    options : how finely the picture is covered
    decoding : how it is captioned, from ``captioner.options``; the model's defaults if None

    Returns the words of the caption, each with float32 [side, side]: by how many nats its
    log-probability falls when that place is covered and the words before it stay. Below 0 the word
    becomes likelier. The captioner must not be used by another thread meanwhile.

    Raises ``ImageError`` and ``OptionsError``.
    """
    options = options or OcclusionOptions()
    pixels = captioner.resize(load_image(image, channels))
    encoded = captioner.engine.encode(pixels[None])
    caption = captioner.decode(encoded, decoding)[0]
    whole = token_logprobs(captioner, encoded, caption.tokens)
    parts = [
        token_logprobs(captioner, captioner.engine.encode(covered), caption.tokens)
        for covered in _covered(pixels, options)
    ]
    falls = (whole - np.concatenate(parts)).reshape(options.side, options.side, -1)
    return [
        (word, falls[..., places].sum(-1))
        for word, places in group_tokens(captioner.tokenizer, caption.tokens)
    ]


def token_logprobs(
    captioner: Captioner, encoded: Encoded, tokens: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Natural log-probability of each of ``tokens`` after those before it, float32 [B, L]."""
    engine: Engine = captioner.engine
    rows = np.arange(encoded.batch)
    found = np.empty((encoded.batch, len(tokens)), np.float32)
    ancestry = np.zeros((encoded.batch, engine.max_positions), np.bool_)
    runner = engine.begin(encoded, 1)
    before = captioner.manifest.tokenizer.bos
    for position, token in enumerate(tokens):
        given = np.full(encoded.batch, before, np.int64)
        logits = runner.step(given, position, rows, ancestry)
        top = logits.max(-1)
        found[:, position] = logits[:, token] - top
        found[:, position] -= np.log(np.exp(logits - top[:, None]).sum(-1))
        ancestry[:, position] = True  # one row a picture: slot t is its own token t
        before = token
    return found


def _covered(pixels: RGB, options: OcclusionOptions) -> Iterator[RGB]:
    """uint8 [B, S, S, 3] in batches: the picture with each place under its own mean colour."""
    size, side = len(pixels), options.side
    grey = np.rint(pixels.mean((0, 1))).astype(np.uint8)
    half = options.cover * size / side / 2
    centres = (np.arange(side) + 0.5) * size / side
    low = np.rint(np.maximum(centres - half, 0)).astype(int)
    high = np.maximum(np.rint(np.minimum(centres + half, size)).astype(int), low + 1)
    places = [(y, x) for y in range(side) for x in range(side)]
    for start in range(0, len(places), MAX_BATCH):
        chunk = places[start : start + MAX_BATCH]
        batch = np.repeat(pixels[None], len(chunk), 0)
        for covered, (y, x) in zip(batch, chunk, strict=True):
            covered[low[y] : high[y], low[x] : high[x]] = grey
        yield batch
