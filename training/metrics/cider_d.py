"""CIDEr-D (Vedantam et al., CVPR 2015) of token ids, in C++ (runtime/native/cider.cpp).

Equal to ``Cider`` of pycocoevalcap, and to ``Cider`` here (cider.py), which say what is computed.
Fast enough to be the reward of reinforcement training: everything that hangs on the references is
computed once.
"""

from __future__ import annotations

import importlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import DataError
from edgecap.runtime.files import replacing
from edgecap.training.metrics.base import CaptionSet, MetricResult, mean_result, split_no_break

# By name: type checkers see the source tree, where the built module does not lie.
_native: Any = importlib.import_module("edgecap._native")

_FORMAT = 1

Ids = npt.NDArray[np.int64]
References = Sequence[Sequence[Sequence[int]]]


@dataclass(frozen=True)
class TokenDocumentFrequency:
    """In how many of ``images`` images some reference has an n-gram of token ids.

    hashes : uint64 [M], one per n-gram; they mean the same ids on every machine
    counts : int64 [M], 0 to ``images``
    """

    hashes: npt.NDArray[np.uint64]
    counts: Ids
    images: int

    def __post_init__(self) -> None:
        if (
            self.hashes.dtype != np.uint64
            or self.counts.dtype != np.int64
            or self.hashes.ndim != 1
            or self.hashes.shape != self.counts.shape
            or self.images < 1
            or (self.counts.size and not 0 <= self.counts.min() <= self.counts.max() <= self.images)
        ):
            raise DataError(
                "document frequencies need uint64 hashes [M], int64 counts [M] from 0 to the "
                "number of images, and at least one image"
            )

    @classmethod
    def of(cls, references: References) -> TokenDocumentFrequency:
        """Count over the references of each image, given as lists of token ids."""
        return CiderD(references).document_frequency

    def save(self, path: str | Path) -> None:
        """Write a .npz file: all of it or nothing."""
        path = Path(path)
        try:
            with replacing(path) as file:
                np.savez_compressed(
                    file,
                    format=np.int64(_FORMAT),
                    images=np.int64(self.images),
                    hashes=self.hashes,
                    counts=self.counts,
                )
        except OSError as error:
            raise DataError(f"cannot write {str(path)!r}: {error.strerror}") from None

    @classmethod
    def load(cls, path: str | Path) -> TokenDocumentFrequency:
        """Read what ``save`` wrote. Raises DataError on any other file."""
        wanted = "give a .npz file that TokenDocumentFrequency.save wrote"
        try:
            with np.load(path, allow_pickle=False) as data:
                if int(data["format"]) != _FORMAT:
                    raise DataError(f"{str(path)!r} has format {int(data['format'])}; {wanted}")
                return cls(data["hashes"], data["counts"], int(data["images"]))
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
        except (KeyError, TypeError, AttributeError, ValueError, zipfile.BadZipFile):
            raise DataError(f"{str(path)!r} holds no document frequencies; {wanted}") from None


class CiderD:
    """Scores captions against the references of the images it was made of.

    references : per image at least one reference, each a sequence of token ids. Whatever counts as
        a word is an id: give EOS at the end of references and candidates alike and it is one.
    document_frequency : those of other references, such as a whole training set; else they are
        counted over ``references``

    Raises DataError without images or with an image without references.
    """

    def __init__(
        self,
        references: References,
        document_frequency: TokenDocumentFrequency | None = None,
    ) -> None:
        counts = np.array([len(captions) for captions in references], np.int64)
        if not counts.size or not counts.min():
            raise DataError("CIDEr-D needs the references of at least one image, and for each one")
        lengths = np.array([len(one) for captions in references for one in captions], np.int64)
        flat = [token for captions in references for one in captions for token in one]
        try:
            self._core = _native.CiderD(_ids(flat, "references"), lengths, counts)
        except ValueError as error:
            raise DataError(str(error)) from None
        if document_frequency is not None:
            self._core.set_document_frequency(
                np.ascontiguousarray(document_frequency.hashes),
                np.ascontiguousarray(document_frequency.counts),
                document_frequency.images,
            )

    @property
    def images(self) -> int:
        """How many images have references here."""
        return int(self._core.images)

    @property
    def document_frequency(self) -> TokenDocumentFrequency:
        """Those in use."""
        size = self._core.ngrams
        hashes, counts = np.empty(size, np.uint64), np.empty(size, np.int64)
        self._core.document_frequency(hashes, counts)
        order = np.argsort(hashes)
        return TokenDocumentFrequency(hashes[order], counts[order], int(self._core.documents))

    def score(
        self, images: npt.ArrayLike, tokens: npt.ArrayLike, lengths: npt.ArrayLike | None = None
    ) -> npt.NDArray[np.float64]:
        """CIDEr-D of N captions, float64 [N], 0 to 10.

        images : integers [N], the image of each row by its place in ``references``
        tokens : integers [N, L], padded after ``lengths`` with anything
        lengths : integers [N], 0 to L; L for every row if not given

        Raises DataError on other shapes, dtypes, images or lengths.
        """
        rows, image_ids = _ids(tokens, "tokens"), _ids(images, "images")
        if rows.ndim != 2 or image_ids.ndim != 1 or len(rows) != len(image_ids):
            raise DataError(
                f"images {image_ids.shape} and tokens {rows.shape}; give [N] and [N, L]"
            )
        if lengths is None:
            lengths = np.full(len(rows), rows.shape[1], np.int64)
        found = np.empty(len(rows), np.float64)
        try:
            self._core.score(image_ids, rows, _ids(lengths, "lengths"), found)
        except (ValueError, IndexError, TypeError) as error:
            raise DataError(" ".join(str(error).split())) from None
        return found


def pad(captions: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Lists of token ids as rows: tokens [N, L], zeros after each caption, and lengths [N]."""
    lengths = np.array([len(caption) for caption in captions], np.int64)
    tokens = np.zeros((len(captions), int(lengths.max(initial=0))), np.int64)
    for row, caption in zip(tokens, captions, strict=True):
        row[: len(caption)] = caption
    return tokens, lengths


def compute(captions: CaptionSet) -> MetricResult:
    """CIDEr-D of a caption set, document frequencies from its own references."""
    numbers: dict[str, int] = {}

    def encode(tokens: list[str]) -> list[int]:
        return [numbers.setdefault(word, len(numbers)) for word in split_no_break(tokens)]

    scorer = CiderD([[encode(r) for r in refs] for refs in captions.reference_tokens])
    tokens, lengths = pad([encode(candidate) for candidate in captions.candidate_tokens])
    scores = scorer.score(np.arange(len(tokens)), tokens, lengths)
    return mean_result("CIDEr-D", scores.tolist())


def _ids(values: npt.ArrayLike, name: str) -> Ids:
    array = np.asarray(values)
    if not array.size:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} are {array.dtype}; give integers")
    return np.ascontiguousarray(array, np.int64)
