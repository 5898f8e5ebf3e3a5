"""Validation: caption held-out pictures with the runtime's beam search and score them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.text import Tokenizer
from edgecap.training.data import CaptionedImage
from edgecap.training.features import Features
from edgecap.training.metrics import evaluate
from edgecap.training.models.base import CaptionModel
from edgecap.training.torch_engine import TorchEngine
from edgecap.training.vocabulary import BOS, EOS, PAD, UNK

SPECIAL = SpecialTokens(bos=BOS, eos=EOS, pad=PAD)
SUPPRESSED = (PAD, BOS, UNK)
BATCH = 50
# A caption that ends on one of these breaks off.
BROKEN = frozenset(["a", "an", "the", "with", "of", "and"])


@dataclass(frozen=True)
class Validation:
    """Held-out pictures, their cached features and the search they are captioned with.

    ``groups`` names consecutive runs of ``images`` and their lengths; the first one chooses the
    checkpoint, the others are reported with their name before the metric's.
    """

    images: Sequence[CaptionedImage]
    cache: Features
    tokenizer: Tokenizer
    groups: tuple[tuple[str, int], ...]
    beams: int = 3

    def captions(self, model: CaptionModel) -> list[str]:
        engine = TorchEngine(model)
        options = DecodingOptions(
            beams=self.beams, max_new_tokens=engine.max_positions, suppress_tokens=SUPPRESSED
        )
        texts: list[str] = []
        for start in range(0, len(self.images), BATCH):
            rows = np.arange(start, min(start + BATCH, len(self.images)))
            encoded = engine.encode_frozen(self.cache.batch(rows, np.zeros_like(rows)))
            for best in generate(engine, encoded, options, SPECIAL).hypotheses:
                texts.append(self.tokenizer.decode(list(best[0].tokens)))
        return texts

    def score(self, model: CaptionModel) -> dict[str, float]:
        """Corpus scores of every group, the mean length in words, and what tells a collapse: the
        share of captions that break off ("endings") and of captions that differ ("distinct")."""
        texts = self.captions(model)
        scores: dict[str, float] = {}
        start = 0
        for number, (name, count) in enumerate(self.groups):
            part = slice(start, start + count)
            start += count
            corpus = evaluate(
                {
                    image.id: text
                    for image, text in zip(self.images[part], texts[part], strict=True)
                },
                {image.id: list(image.captions) for image in self.images[part]},
            ).corpus
            prefix = "" if number == 0 else f"{name}/"
            scores |= {prefix + metric: value for metric, value in corpus.items()}
        return scores | caption_statistics(texts)


def broken_tokens(tokenizer_json: str) -> tuple[int, ...]:
    """The ids of the words of ``BROKEN``, and of their byte-level form with a space before it."""
    from tokenizers import Tokenizer as HfTokenizer

    tokenizer = HfTokenizer.from_str(tokenizer_json)
    forms = (form for word in sorted(BROKEN) for form in (word, f"\u0120{word}"))
    found = (tokenizer.token_to_id(form) for form in forms)
    return tuple(token for token in found if token is not None)


def caption_statistics(texts: Sequence[str]) -> dict[str, float]:
    """words : mean length; endings : share that end on a word of ``BROKEN``; distinct : share of
    different captions."""
    words = [text.split() for text in texts]
    return {
        "words": float(np.mean([len(one) for one in words])),
        "endings": float(np.mean([bool(one) and one[-1] in BROKEN for one in words])),
        "distinct": len(set(texts)) / max(1, len(texts)),
    }
