"""Drafts, deadlines and batches with real graphs: the default bundle and a tiny one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.draft_graph import sentence_graph
from edgecap.runtime.errors import EngineError, OptionsError
from edgecap.runtime.streams import Frame, StreamOptions
from edgecap.runtime.streams.describe import Describer, Job, select, stopper
from edgecap.runtime.streams.draft import (
    REFUSED,
    SETTLED,
    Trust,
    Verifier,
    draft_of,
    sentence_scorer,
)
from edgecap.runtime.streams.gate import Decision, FeatureGate

pytest.importorskip("onnx")
DEFAULT = Path(__file__).resolve().parents[3] / "edgecap" / "models" / "default.edgecap"


@pytest.fixture(scope="module")
def captioner() -> Captioner:
    return Captioner(DEFAULT, threads=1)


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[np.ndarray]:
    """Photographs, uint8 [H, W, 3] BGR."""
    import cv2

    paths = sorted((shared / "data" / "coco_captions" / "images").glob("*.jpg"))[:6]
    return [cv2.imread(str(path)) for path in paths]


def frame(image: np.ndarray, index: int = 0) -> Frame:
    return Frame(image, index, 0.0, float(index), None, "test")


def encode(captioner: Captioner, image: np.ndarray) -> Any:
    return captioner.engine.encode(captioner.resize(image)[None, ..., ::-1].copy())


def test_one_pass_scores_what_beam_search_scored_step_by_step(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    score = sentence_scorer(captioner)
    for image in pictures:
        encoded = encode(captioner, image)
        found = captioner.search(encoded, captioner.options(num_return_sequences=4))
        for hypothesis in found.hypotheses[0]:
            logprobs = score(hypothesis.tokens, encoded)
            own = logprobs[np.arange(len(hypothesis.tokens)), list(hypothesis.tokens)]
            assert np.allclose(own, hypothesis.logprobs, atol=2e-3)
            assert np.allclose(np.exp(logprobs).sum(axis=1), 1.0, atol=1e-3)


def test_a_draft_is_kept_for_its_own_picture_and_refused_for_others(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    verifier = Verifier(captioner)
    assert verifier.able
    options = captioner.options(num_return_sequences=2)
    encoded = [encode(captioner, image) for image in pictures]
    captions = [captioner.decode(each, options)[0] for each in encoded]
    for index, caption in enumerate(captions):
        draft = draft_of(caption, encoded[index])
        assert draft is not None
        kept = verifier.verify(draft, encoded[index], options)
        assert not isinstance(kept, str)
        assert kept is not None
        assert (kept.text, kept.tokens) == (caption.text, caption.tokens)
        assert kept.score == pytest.approx(caption.score, abs=2e-3)
        assert kept.confidence == pytest.approx(caption.confidence, abs=5e-3)
        other = (index + 1) % len(pictures)
        if captions[other].tokens != caption.tokens:
            assert verifier.verify(draft, encoded[other], options) == REFUSED
        # What beam search does with these cannot be told from one pass.
        assert (
            verifier.verify(draft, encoded[index], replace(options, repetition_penalty=1.3)) is None
        )
    assert draft_of(replace(captions[0], truncated=True), encoded[0]) is None


def test_a_recurrent_decoder_has_no_drafts(make_bundle: Any) -> None:
    captioner = Captioner(make_bundle(recurrent=True), threads=1)
    assert not Verifier(captioner).able
    from edgecap.runtime.bundle import read_bundle

    bundle = read_bundle(captioner.path)
    with pytest.raises(EngineError, match="of a make whose drafts"):
        sentence_graph(bundle.files[bundle.manifest.graphs.decoder.file])


def test_a_batch_says_what_each_picture_says_alone(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    describer = Describer(captioner, {"beams": 2}, near=2.0)
    jobs = [Job(frame(image), Decision(True, "first")) for image in pictures]
    describer.describe(jobs)
    for job, image in zip(jobs, pictures, strict=True):
        assert job.caption is not None
        alone = captioner(image, channels="BGR", beams=2)
        # The quantised encoder may round otherwise in a batch: the score tells a real difference.
        assert job.caption.score == pytest.approx(alone.score, abs=0.05)
        timings = job.caption.timings
        assert min(timings.preprocess, timings.encode, timings.decode) > 0.0
    alone = Job(frame(pictures[0]), Decision(True, "first"))
    describer.describe([alone])
    assert alone.caption is not None
    expected = captioner(pictures[0], channels="BGR", beams=2)
    assert (alone.caption.text, alone.caption.score) == (expected.text, expected.score)


def test_a_near_frame_keeps_the_caption_and_a_far_one_does_not(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    describer = Describer(captioner, {}, near=0.95)
    describer.use_drafts()
    gate = FeatureGate()
    first = Job(frame(pictures[0]), Decision(True, "first"), confirm=gate.confirm)
    describer.describe([first])
    assert first.verdict is None
    assert first.next_draft is not None
    last, trust = first.next_draft, Trust()
    for index in range(SETTLED):  # not settled yet: searched without a word of drafts
        again = Job(frame(pictures[0], 1 + index), Decision(True, "refresh"), gate.confirm)
        again.draft, again.trust = last, trust
        describer.describe([again])
        assert again.verdict is None
        last = again.next_draft
        assert last is not None
        assert last.settled == index + 1
    checked = Job(frame(pictures[0], 8), Decision(True, "refresh"), gate.confirm, last, trust)
    describer.describe([checked])
    assert checked.verdict == "checked"
    assert checked.next_draft is not None
    for _ in range(58):
        assert not trust.earned
        trust.learn(True)  # one more than the check itself taught
    again = Job(frame(pictures[0], 9), Decision(True, "refresh"), gate.confirm, last, trust)
    describer.describe([again])
    assert again.verdict == "kept"
    assert again.cosine == pytest.approx(1.0, abs=1e-3)
    assert again.caption is not None
    assert first.caption is not None
    assert again.caption.text == first.caption.text
    assert again.next_draft is None
    other = Job(
        frame(pictures[1], 2), Decision(True, "changed"), gate.confirm, draft=last, trust=trust
    )
    describer.describe([other])
    assert other.verdict is None, "the features are too far for a draft"
    assert other.caption is not None
    same = Job(frame(pictures[1], 3), Decision(True, "changed"), gate.confirm)
    describer.describe([same])
    assert same.caption is None
    assert (same.decision.passed, same.decision.reason) == (False, "same")


@pytest.mark.parametrize("wrong", range(5))
def test_trust_is_earned_when_an_exact_binomial_test_says_so(wrong: int) -> None:
    binomtest = pytest.importorskip("scipy.stats").binomtest
    trust = Trust()
    for _ in range(wrong):
        trust.learn(False)
    while not trust.earned:
        trust.learn(True)
    count = len(trust._checks)

    def chance(trials: int) -> float:
        return float(binomtest(wrong, trials, 0.05, alternative="less").pvalue)

    assert chance(count) <= 0.05 < chance(count - 1)
    assert (wrong, count) in [(0, 59), (1, 93), (2, 124), (3, 153), (4, 181)]


def test_one_draft_in_four_is_a_check_and_trust_can_be_lost() -> None:
    trust = Trust()
    assert not trust.keep()
    for _ in range(200):
        trust.learn(True)
    assert [trust.keep() for _ in range(8)].count(True) == 6
    for _ in range(5):
        trust.learn(False)
    assert not trust.earned
    assert not trust.keep()


def test_a_deadline_that_is_over_gives_one_token_and_says_so(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    describer = Describer(captioner, {}, near=2.0)
    jobs = [
        Job(frame(pictures[0]), Decision(True, "first"), deadline=0.0),
        Job(frame(pictures[0]), Decision(True, "first"), deadline=float("inf")),
    ]
    describer.describe(jobs)
    over, ample = (job.caption for job in jobs)
    assert over is not None
    assert ample is not None
    assert (over.truncated, over.timings.steps) == (True, 1)
    assert not ample.truncated
    assert ample.timings.steps > 1


def test_the_stopper_leaves_room_for_another_step(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopper(None) is None
    now = [0.0]
    monkeypatch.setattr("edgecap.runtime.streams.describe.time.monotonic", lambda: now[0])
    should_stop = stopper(10.0)
    assert should_stop is not None
    answers = []
    for moment in (2.0, 4.0, 6.0, 8.0, 8.5):
        now[0] = moment
        answers.append(should_stop())
    assert answers == [False, False, False, False, True]


def test_bad_decoding_options_are_told_before_the_first_frame(captioner: Captioner) -> None:
    with pytest.raises(OptionsError, match="beams"):
        Describer(captioner, {"beams": 99}, near=2.0)


def test_a_selection_of_a_batch(captioner: Captioner, pictures: list[np.ndarray]) -> None:
    small = np.stack([captioner.resize(image) for image in pictures[:3]])
    encoded = captioner.engine.encode(small)
    part = select(encoded, [2, 0])
    assert part.batch == 2
    for name, value in encoded.memory.items():
        assert np.array_equal(part.memory[name], value[[2, 0]])
    assert select(encoded, [0, 1, 2]) is encoded


def test_options_of_a_stream_reach_the_gate() -> None:
    options = StreamOptions(same=0.99, changed=0.98)
    assert (options.same, options.changed) == (0.99, 0.98)
