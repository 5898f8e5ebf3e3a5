"""The loop between an engine and beam search."""

from __future__ import annotations

import numpy as np
import pytest

from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.engines.base import Encoded

SPECIAL = SpecialTokens(bos=1, eos=0, pad=0)
VOCAB = 30


class Markov:
    """An engine whose logits depend on the picture and on the last token alone."""

    image_size, vocab_size, max_positions = 4, VOCAB, 7

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.table = rng.normal(size=(3, VOCAB, VOCAB)).astype(np.float32) * 2
        self.table[:, :, SPECIAL.eos] = -30.0
        self.seen: list[tuple[int, int, int, int]] = []

    def encode(self, images: np.ndarray) -> Encoded:
        return Encoded(len(images), {}, {}, None, None)

    def begin(self, encoded: Encoded, beams: int) -> Markov:
        self.owner = np.repeat(np.arange(encoded.batch), beams)
        return self

    def step(
        self, tokens: np.ndarray, position: int, parents: np.ndarray, ancestry: np.ndarray
    ) -> np.ndarray:
        self.seen.append((position, id(tokens), id(parents), id(ancestry)))
        assert (ancestry.sum(axis=1) == position).all()
        if position == 0:
            assert (tokens == SPECIAL.bos).all()
            assert parents.tolist() == list(range(len(tokens)))
        logits: np.ndarray = self.table[self.owner, tokens]
        return logits


@pytest.fixture
def engine() -> Markov:
    return Markov()


def encoded(engine: Markov, batch: int) -> Encoded:
    return engine.encode(np.zeros((batch, 4, 4, 3), np.uint8))


def test_runs_to_the_model_s_last_position(engine: Markov) -> None:
    options = DecodingOptions(beams=3, max_new_tokens=50, min_new_tokens=40)
    decoded = generate(engine, encoded(engine, 2), options, SPECIAL)
    assert decoded.steps == 7
    assert [len(h.tokens) for [h] in decoded.hypotheses] == [7, 7]
    assert [position for position, *_ in engine.seen] == list(range(7))
    assert len({tuple(arrays) for _, *arrays in engine.seen}) == 1  # the same memory every step
    assert not decoded.truncated
    assert 0 < decoded.step_ms < decoded.decode_ms


def test_greedy_follows_the_table(engine: Markov) -> None:
    options = DecodingOptions(beams=1, max_new_tokens=5)
    decoded = generate(engine, encoded(engine, 3), options, SPECIAL)
    for image, [found] in enumerate(decoded.hypotheses):
        last, walked = SPECIAL.bos, []
        for _ in range(5):
            last = int(engine.table[image, last].argmax())
            walked.append(last)
        assert found.tokens == tuple(walked)


def test_a_wide_beam_is_exhaustive(engine: Markov) -> None:
    """With K at least the number of live prefixes, beam search finds the best sequence of all."""
    table = engine.table = engine.table[:, :4, :4]
    engine.vocab_size = 4
    options = DecodingOptions(beams=16, max_new_tokens=3, suppress_tokens=(SPECIAL.eos,))
    [[found]] = generate(engine, encoded(engine, 1), options, SPECIAL).hypotheses
    logprob = table[0] - np.log(np.exp(table[0]).sum(axis=1, keepdims=True))
    best = max(
        (logprob[1, a] + logprob[a, b] + logprob[b, c], (a, b, c))
        for a in range(1, 4)
        for b in range(1, 4)
        for c in range(1, 4)
    )
    assert found.tokens == best[1]
    assert found.score == pytest.approx(best[0] / 3, abs=1e-5)


def test_should_stop_keeps_the_best_so_far(engine: Markov) -> None:
    asked = []

    def stop() -> bool:
        asked.append(True)
        return len(asked) == 3

    options = DecodingOptions(beams=2, max_new_tokens=7, num_return_sequences=2)
    decoded = generate(engine, encoded(engine, 1), options, SPECIAL, should_stop=stop)
    assert decoded.truncated
    assert decoded.steps == 3
    assert [len(h.tokens) for h in decoded.hypotheses[0]] == [3, 3]


def test_stopped_after_a_sentence_ended_gives_that_sentence(engine: Markov) -> None:
    engine.table[:, SPECIAL.bos, SPECIAL.eos] = 2.0
    options = DecodingOptions(beams=4, max_new_tokens=7, num_return_sequences=2)
    decoded = generate(engine, encoded(engine, 1), options, SPECIAL, should_stop=lambda: True)
    [ended, running] = decoded.hypotheses[0]
    assert ended.tokens == (SPECIAL.eos,)
    assert len(running.tokens) == 1
    assert running.tokens != ended.tokens
