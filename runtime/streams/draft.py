"""The last caption as a draft for the next frame: scored in one pass, kept or decoded anew."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.caption import Caption
from edgecap.runtime.confidence import caption_features, confidence, is_sure
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.decoding.search import Hypothesis
from edgecap.runtime.engines.base import Encoded, ScoresSentences
from edgecap.runtime.errors import EdgeCapError

LOG = logging.getLogger("edgecap.streams")
FALL = 0.05  # nats a token by which the score may have fallen since the caption was decoded
BEHIND = 0.3  # nats by which a token may have fallen further behind the best other one
EQUAL = 1e-2  # nats within which both graphs must agree, or drafts are not used
REFUSED = "refused"
SETTLED = 3  # searches in a row that came to the same caption again before it is a draft
AGREE = 0.95  # share of kept drafts that must be what beam search says
DOUBT = 0.05  # probability that less than AGREE of them are, at which drafts are kept
LATEST = 200  # checks that count
EVERY = 4  # one in so many drafts is searched all the same, for ever
Floats = npt.NDArray[np.float32]


@dataclass
class Draft:
    """A caption that may hold for the next frame, too.

    margin : how far its score was above the runner-up's when it was decoded
    encoded : the picture it was decoded for
    own, lead : float32 [N], the log-probability of each token given that picture, and how far it
        is above the best other token at its place; found when they are needed first
    settled : searches in a row, before the last, that came to the same caption
    """

    caption: Caption
    margin: float
    encoded: Encoded
    own: Floats | None = None
    lead: Floats | None = None
    settled: int = 0


class Trust:
    """Whether one camera's drafts have earned it to be kept, by what beam search said beside them.

    A caption's own score does not tell whether beam search would change its mind: that depends on
    the scene. So a draft that passed is first only checked: searched, too, and compared. Drafts
    are kept once the checks say, at 95 % confidence, that at least 95 % are what the search says
    (exact binomial test: 59 of 59, 92 of 93, 122 of 124, 150 of 153, 177 of 181). One in four stays
    a check, and when the last 200 checks no longer say so, none is kept until they do again.
    """

    def __init__(self) -> None:
        self._checks: deque[bool] = deque(maxlen=LATEST)
        self._since = 0

    @property
    def earned(self) -> bool:
        """Whether the checks are good enough."""
        count = len(self._checks)
        wrong = count - sum(self._checks)
        chance = sum(
            math.comb(count, k) * (1.0 - AGREE) ** k * AGREE ** (count - k)
            for k in range(wrong + 1)
        )
        return chance <= DOUBT

    def keep(self) -> bool:
        """Whether the draft that has passed now is kept; if not, ``learn`` what the search says."""
        if not self.earned:
            return False
        self._since = (self._since + 1) % EVERY
        return self._since != 0

    def learn(self, same: bool) -> None:
        """Take the outcome of a check."""
        self._checks.append(same)


def draft_of(caption: Caption, encoded: Encoded) -> Draft | None:
    """A caption decoded for one picture as a draft; None where it is cut short or empty."""
    if caption.truncated or not caption.tokens:
        return None
    others = [other.score for other in caption.alternatives]
    margin = caption.score - others[0] if others else 0.0
    return Draft(replace(caption, alternatives=()), margin, encoded)


class Verifier:
    """Scores drafts with a captioner's own decoder, all positions in one pass.

    A draft is kept where, given the new picture, its mean log-probability is not more than 0.05
    nats a token lower than given its own, and no token lies more than 0.3 nats further behind the
    best other at its place than it did then: what was a clear choice still is one, and where the
    beam went against the first choice it has as much reason to. That is no proof that beam search
    would find the same sentence: ``Trust`` finds out how often it does.
    """

    def __init__(self, captioner: Any) -> None:
        self._captioner = captioner
        self._score: Callable[[tuple[int, ...], Encoded], Floats] | None = None
        try:
            self._score = sentence_scorer(captioner)
        except (EdgeCapError, AttributeError) as error:
            LOG.info("captions are always decoded anew: %s", error)

    @property
    def able(self) -> bool:
        """Whether this captioner's drafts can be verified."""
        return self._score is not None

    def verify(
        self, draft: Draft, encoded: Encoded, options: DecodingOptions
    ) -> Caption | str | None:
        """The draft as a caption of the new picture, ``REFUSED``, or None: cannot be told.

        encoded : of one picture
        """
        plain = options.repetition_penalty == 1.0 and not options.no_repeat_ngram_size
        if self._score is None or not plain:
            return None
        tokens = draft.caption.tokens
        if draft.own is None or draft.lead is None:
            draft.own, draft.lead = self._profile(tokens, draft.encoded, options)
        own, lead = self._profile(tokens, encoded, options)
        fall = float((draft.own - own).mean())
        behind = float((np.minimum(draft.lead, 0.0) - lead).max())
        if fall > FALL or behind > BEHIND:
            return REFUSED
        score = float(own.sum() / len(tokens) ** options.length_penalty)
        best = Hypothesis(tokens, score, tuple(float(value) for value in own))
        found = (best, replace(best, score=score - draft.margin))
        novelty = None if encoded.novelty is None else float(encoded.novelty[0])
        params = self._captioner.manifest.confidence
        value = confidence(caption_features(found, novelty), params)
        return replace(draft.caption, score=score, confidence=value, sure=is_sure(value, params))

    def _profile(
        self, tokens: tuple[int, ...], encoded: Encoded, options: DecodingOptions
    ) -> tuple[Floats, Floats]:
        """Each token's log-probability, and its lead over the best other one at its place."""
        assert self._score is not None
        logprobs = self._score(tokens, encoded)
        places = np.arange(len(tokens)), list(tokens)
        own = logprobs[places].copy()
        logprobs[:, list(options.suppress_tokens)] = -np.inf
        logprobs[places] = -np.inf
        return own, own - logprobs.max(axis=1)


def sentence_scorer(
    captioner: Any,
) -> Callable[[tuple[int, ...], Encoded], Floats]:
    """A function (tokens, encoded) -> log-probabilities float32 [N, V], N = len(tokens).

    Row i is what follows the first i tokens. Raises EngineError where the decoder cannot be turned
    into such a graph, or computes something else then.
    """
    engine, bos = captioner.engine, captioner.manifest.tokenizer.bos
    if isinstance(engine, ScoresSentences):
        return lambda tokens, encoded: _log_softmax(
            engine.sentence_logits(encoded, [bos, *tokens[:-1]])
        )
    return _graph_scorer(captioner)


def _graph_scorer(captioner: Any) -> Callable[[tuple[int, ...], Encoded], Floats]:
    """By ONNX Runtime, all positions in one pass of the decoder's graph, changed for it."""
    from edgecap.runtime.bundle import read_bundle
    from edgecap.runtime.engines.draft_graph import sentence_graph
    from edgecap.runtime.engines.onnx import open_session
    from edgecap.runtime.errors import EngineError

    manifest = captioner.manifest
    spec = manifest.graphs.decoder
    model = read_bundle(captioner.path).files[spec.file]
    threads = getattr(captioner.engine, "threads", 1)
    session = open_session(sentence_graph(model), spec.file, threads)
    caches = {
        entry.name: np.zeros((1, 0, *(int(side) for side in entry.shape[2:])), entry.dtype)
        for entry in spec.inputs
        if entry.name.startswith("cache.")
    }
    memory = [entry.name for entry in spec.inputs if entry.name.startswith("memory.")]
    token = next(entry.dtype for entry in spec.inputs if entry.name == "token")
    bos = manifest.tokenizer.bos

    def score(tokens: tuple[int, ...], encoded: Encoded) -> Floats:
        length = len(tokens)
        feed: dict[str, Any] = {
            "token": np.array([bos, *tokens[:-1]], token),
            "position": np.arange(length, dtype=np.int64),
            "ancestry": np.zeros((length, 0), np.bool_),
            **caches,
            **{name: np.asarray(encoded.memory[name]) for name in memory},
        }
        return _log_softmax(np.asarray(session.run(["logits"], feed)[0], np.float32))

    size = captioner.engine.image_size
    grey = captioner.engine.encode(np.full((1, size, size, 3), 127, np.uint8))
    try:
        best = captioner.search(grey, captioner.options()).hypotheses[0][0]
        found = score(best.tokens, grey)[np.arange(len(best.tokens)), list(best.tokens)]
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise EngineError(f"the decoder does not score sentences ({error})"[:300]) from None
    plain = captioner.options().repetition_penalty == 1.0
    if plain and np.abs(found - np.array(best.logprobs)).max() > EQUAL:
        raise EngineError("the decoder scores sentences otherwise than step by step")
    return score


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)
