"""Captioned photographs as arrays: which pictures, which token rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import DataError
from edgecap.runtime.text import normalise_caption
from edgecap.training.data import CaptionDataset, CaptionedImage, open_dataset
from edgecap.training.vocabulary import BOS, EOS, PAD

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MIN_WORDS = 4  # "A" and "A group of" are damaged captions, not short ones


@dataclass(frozen=True)
class SplitSpec:
    """One part of the training mix: ``data`` is NAME:FOLDER, ``split`` its list.

    ``every`` and ``part`` cut a list without an official validation split into a fixed tenth or
    so: "kept" drops every n-th picture, "held" keeps only those.
    """

    data: str
    split: str
    every: int = 0
    part: str = "all"

    def __post_init__(self) -> None:
        if self.part not in ("all", "kept", "held") or (self.part != "all" and self.every < 2):
            raise DataError(
                f"part is {self.part!r} with every {self.every}; give 'all', or 'kept' or 'held' "
                "with every of 2 or more"
            )


def open_part(spec: SplitSpec) -> CaptionDataset:
    """The data set of one spec, cut to its part."""
    dataset = open_dataset(spec.data, spec.split)
    if spec.part == "held":
        return replace(dataset, images=dataset.images[:: spec.every])
    if spec.part == "kept":
        kept = tuple(image for i, image in enumerate(dataset.images) if i % spec.every)
        return replace(dataset, images=kept)
    return dataset


def read_images(specs: Sequence[SplitSpec]) -> list[CaptionedImage]:
    """All pictures of the specs, in their order."""
    return [image for spec in specs for image in open_part(spec)]


def training_captions(image: CaptionedImage) -> list[str]:
    """The captions of a picture that are worth learning, normalised; never an empty list."""
    texts = [normalise_caption(text) for text in image.captions]
    return [text for text in texts if len(text.split()) >= MIN_WORDS] or texts


@dataclass(frozen=True)
class Corpus:
    """``tokens`` int64 [N, C, T + 1]: BOS, words, EOS, PAD. A picture with fewer than C captions
    repeats its own. Captions over T - 1 words are cut without an EOS, so they teach no ending.

    images : N pictures, in the cache's order
    used : int64 [M], the places of those that are trained on
    words : int64 [N], tokens of a picture's captions that are learned, EOS counted
    """

    images: Sequence[CaptionedImage]
    tokens: npt.NDArray[np.int64]
    used: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", (self.tokens[:, :, 1:] != PAD).sum((1, 2)))


def build_corpus(
    images: Sequence[CaptionedImage],
    tokenizer: Tokenizer,
    captions: int,
    max_positions: int,
    *,
    extra: Sequence[str] = (),
    left_out: Sequence[int] = (),
) -> Corpus:
    """Token rows of ``captions`` captions a picture.

    extra : one more caption for each picture, such as a teacher's
    left_out : places of pictures that stay in the cache and are not trained on
    """
    rows = np.full((len(images), captions + bool(extra), max_positions + 1), PAD, np.int64)
    for n, image in enumerate(images):
        own = training_captions(image)
        texts = [own[c % len(own)] for c in range(captions)]
        if extra:
            texts.append(normalise_caption(extra[n]) or own[0])
        for c, text in enumerate(texts):
            ids = [BOS, *tokenizer.encode(text, add_special_tokens=False).ids, EOS]
            rows[n, c, : len(ids)] = ids[: max_positions + 1]
    used = np.setdiff1d(np.arange(len(images)), np.asarray(left_out, np.int64))
    return Corpus(images, rows, used)
