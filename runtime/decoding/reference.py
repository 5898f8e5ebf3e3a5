"""Beam search in numpy: the specification that every other implementation must equal.

The meaning is that of Hugging Face transformers 5.23 ``generate(num_beams=K, do_sample=False)``,
taken for each picture alone (a picture that is done no longer changes). Scores are float32, and
ties go to the lower flat index beam * V + token.

At step t, with K > 1:
1. log-softmax of each row, then the processors on log-probabilities: repetition penalty,
   no-repeat n-grams (both see BOS), EOS banned while t < min_new_tokens, suppressed tokens;
2. the best 2K of running score + log-probability. Beam 0 starts at 0, the others at -1e9;
3. candidates with EOS, and all at the last step, end. The best K not ended run on;
4. ended candidates of rank < K join the pool of K, ordered by score / (t + 1) ** length_penalty;
5. the picture is done when its pool is full and early_stopping is True, or when the best running
   score, over its length now ("never" with a positive penalty: over the greatest length) **
   length_penalty, is not above the worst of the pool.

With K = 1, as there, greedy search: the processors work on logits, the first maximum is taken,
and EOS ends. Log-probabilities reported are those of 1.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import NOTHING, Hypothesis

Floats = npt.NDArray[np.float32]
LARGEST = np.finfo(np.float32).max
EMPTY = Hypothesis((), NOTHING, ())


class ReferenceSearch:
    """See ``BeamSearch``."""

    def __init__(
        self,
        batch: int,
        vocab_size: int,
        max_positions: int,
        options: DecodingOptions,
        special: SpecialTokens,
    ) -> None:
        self.options, self.special = options, special
        self.shape = (batch * options.beams, vocab_size)
        self.limit = min(options.max_new_tokens, max_positions)
        rows, beams = batch * options.beams, options.beams
        self.tokens = np.full(rows, special.bos, np.int64)
        self.parents = np.arange(rows, dtype=np.int64)
        self.ancestry = np.zeros((rows, beams * max_positions), np.bool_)
        self.position = 0
        self._images = [_Image(options, special, self.limit) for _ in range(batch)]

    def step(self, logits: Floats) -> bool:
        if logits.shape != self.shape or logits.dtype != np.float32:
            raise ValueError(
                f"logits are {logits.dtype} {list(logits.shape)}; give float32 {list(self.shape)}"
            )
        if self._over():
            return True
        t, beams = self.position, self.options.beams
        with np.errstate(all="ignore"):
            for number, image in enumerate(self._images):
                rows = slice(number * beams, (number + 1) * beams)
                if not image.done:
                    image.advance(_clean(logits[rows]), t)
                    self.tokens[rows] = [sequence[-1] for sequence in image.sequences]
                    self.parents[rows] = image.parents + rows.start
                if image.done:
                    self.tokens[rows] = self.special.pad
                    self.parents[rows] = np.arange(rows.start, rows.stop)
        self.ancestry[:] = self.ancestry[self.parents]
        self.ancestry[np.arange(len(self.parents)), t * beams + self.parents % beams] = True
        self.position += 1
        return self._over()

    def finish(self) -> list[list[Hypothesis]]:
        best = [image.hypotheses(self.position) for image in self._images]
        return [hypotheses[: self.options.num_return_sequences] for hypotheses in best]

    def _over(self) -> bool:
        return all(image.done for image in self._images)


class _Image:
    """The beams and the pool of one picture."""

    def __init__(self, options: DecodingOptions, special: SpecialTokens, limit: int) -> None:
        beams = options.beams
        self.options, self.special, self.limit = options, special, limit
        self.done = False
        self.sequences: list[tuple[int, ...]] = [(special.bos,)] * beams
        self.logprobs: list[tuple[float, ...]] = [()] * beams
        self.parents = np.arange(beams)
        self.running = np.full(beams, NOTHING, np.float32)
        self.running[0] = 0.0
        self.pool = [EMPTY] * beams
        self.pool_scores = np.full(beams, NOTHING, np.float32)

    def advance(self, logits: Floats, t: int) -> None:
        beams, eos = self.options.beams, self.special.eos
        logprobs = self._process(_log_softmax(logits), t)
        if beams == 1:
            flat = np.argmax(self._process(logits, t), axis=1)
        else:
            flat = _best((logprobs + self.running[:, None]).ravel(), 2 * beams)
        parents, tokens = flat // logits.shape[1], flat % logits.shape[1]
        added = logprobs[parents, tokens]
        scores = added + self.running[parents]
        sequences = [self.sequences[p] + (int(v),) for p, v in zip(parents, tokens, strict=True)]
        history = [self.logprobs[p] + (float(v),) for p, v in zip(parents, added, strict=True)]
        last = t + 1 == self.limit
        ends = (tokens == eos) | last

        # The pool: its old hypotheses stand before new ones of the same score.
        normalised = scores / _norm(t + 1, self.options.length_penalty)
        accepted = ends & (np.arange(len(flat)) < beams)
        normalised = np.where(accepted, normalised, normalised + np.float32(NOTHING))
        pool = self.pool + [
            Hypothesis(sequence[1:], float(score), past) if ok else EMPTY
            for sequence, score, past, ok in zip(
                sequences, normalised, history, accepted, strict=True
            )
        ]
        pool_scores = np.concatenate([self.pool_scores, normalised])
        kept = _best(pool_scores, beams)
        self.pool, self.pool_scores = [pool[i] for i in kept], pool_scores[kept]

        # The beams that run on.
        alive = np.where(ends, scores + np.float32(NOTHING), scores)
        kept = _best(alive, beams)
        self.parents, self.running = parents[kept], alive[kept]
        self.sequences = [sequences[i] for i in kept]
        self.logprobs = [history[i] for i in kept]
        self.done = last or (bool(ends[0]) if beams == 1 else not self._can_improve(t + 1))

    def hypotheses(self, length: int) -> list[Hypothesis]:
        if self.done:
            return self.pool
        finished = [hypothesis for hypothesis in self.pool if hypothesis.tokens]
        norm = _norm(length, self.options.length_penalty)
        running = [
            Hypothesis(sequence[1:], float(score / norm), past)
            for sequence, score, past in zip(
                self.sequences, self.running, self.logprobs, strict=True
            )
            if length and score > NOTHING / 2
        ]
        return (finished + running + [EMPTY] * self.options.beams)[: self.options.beams]

    def _can_improve(self, length: int) -> bool:
        stopping, penalty = self.options.early_stopping, self.options.length_penalty
        full = all(hypothesis.tokens for hypothesis in self.pool)
        if full and stopping is True:
            return False
        reach = self.limit if stopping == "never" and penalty > 0 else length
        worst = self.pool_scores.min()
        bounds = [worst if hypothesis.tokens else np.float32(NOTHING) for hypothesis in self.pool]
        return bool((self.running[0] / _norm(reach, penalty) > np.array(bounds)).any())

    def _process(self, values: Floats, t: int) -> Floats:
        """The processors on [K, V] log-probabilities (logits when greedy); gives a copy."""
        values = values.copy()
        vocab = values.shape[1]
        penalty, n = np.float32(self.options.repetition_penalty), self.options.no_repeat_ngram_size
        for row, sequence in zip(values, self.sequences, strict=True):
            if penalty != 1:
                seen = [token for token in sequence if token < vocab]
                row[seen] = np.where(row[seen] < 0, row[seen] * penalty, row[seen] / penalty)
            if n:
                prefix = sequence[len(sequence) - n + 1 :]
                for i in range(len(sequence) - n + 1):
                    window = sequence[i : i + n]
                    if window[:-1] == prefix and window[-1] < vocab:
                        row[window[-1]] = -np.inf
        if t < self.options.min_new_tokens:
            values[:, self.special.eos] = -np.inf
        values[:, [token for token in self.options.suppress_tokens if token < vocab]] = -np.inf
        return values


def _clean(logits: Floats) -> Floats:
    clean: Floats = np.where(np.isnan(logits), np.float32(-np.inf), np.minimum(logits, LARGEST))
    return clean


def _log_softmax(logits: Floats) -> Floats:
    """[K, V]; a row of -inf stays one. The sum is in double, of exact differences, so that permuted
    rows tie exactly, whatever parts of them are summed first."""
    largest = logits.max(axis=1, keepdims=True)
    dead = np.isneginf(logits)
    differences = np.where(dead, -np.inf, logits.astype(np.float64) - largest)
    total = np.exp(differences).sum(axis=1, keepdims=True)
    shifted = np.where(dead, np.float32(-np.inf), logits - largest)
    logprobs: Floats = shifted - np.where(total > 0, np.log(total), 0.0).astype(np.float32)
    return logprobs


def _norm(length: int, length_penalty: float) -> np.float32:
    norm: np.float32 = np.float32(math.pow(max(length, 1), length_penalty))
    return norm


def _best(scores: Floats, count: int) -> npt.NDArray[np.intp]:
    """Indices of the largest values, best first, the lower index first among equals."""
    return np.argsort(-scores, kind="stable")[:count]
