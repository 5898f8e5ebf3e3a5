"""Captioned photographs as arrays: which files, which token rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import DataError
from edgecap.runtime.text import normalise_caption
from edgecap.training.data import CaptionedImage, open_dataset
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


def read_images(specs: Sequence[SplitSpec]) -> list[CaptionedImage]:
    """All pictures of the specs, in their order."""
    images: list[CaptionedImage] = []
    for spec in specs:
        part = list(open_dataset(spec.data, spec.split))
        if spec.part == "held":
            part = part[:: spec.every]
        elif spec.part == "kept":
            part = [image for i, image in enumerate(part) if i % spec.every]
        images.extend(part)
    return images


def training_captions(image: CaptionedImage) -> list[str]:
    """The captions of a picture that are worth learning, normalised; never an empty list."""
    texts = [normalise_caption(text) for text in image.captions]
    return [text for text in texts if len(text.split()) >= MIN_WORDS] or texts


@dataclass(frozen=True)
class Corpus:
    """``tokens`` int64 [N, C, T + 1]: BOS, words, EOS, PAD. A picture with fewer than C captions
    repeats its own. Captions over T - 1 words are cut without an EOS, so they teach no ending."""

    paths: list[Path]
    tokens: npt.NDArray[np.int64]


def build_corpus(
    images: Sequence[CaptionedImage], tokenizer: Tokenizer, captions: int, max_positions: int
) -> Corpus:
    rows = np.full((len(images), captions, max_positions + 1), PAD, np.int64)
    for n, image in enumerate(images):
        texts = training_captions(image)
        for c in range(captions):
            ids = [BOS, *tokenizer.encode(texts[c % len(texts)]).ids, EOS][: max_positions + 1]
            rows[n, c, : len(ids)] = ids
    return Corpus([image.path for image in images], rows)
