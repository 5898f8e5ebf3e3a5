"""Frames to captions: encode together, compare features, verify the last caption, decode."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgecap.runtime.caption import Caption, Timings
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.engines.base import Encoded
from edgecap.runtime.streams.draft import SETTLED, Draft, Trust, Verifier, draft_of
from edgecap.runtime.streams.frames import Frame
from edgecap.runtime.streams.gate import Decision

Confirm = Callable[[Frame, Decision, npt.NDArray[np.float32]], "tuple[Decision, float | None]"]


class Staged(Protocol):
    """What a captioner offers whose stages can be run one by one, as ``edgecap.Captioner`` does."""

    engine: Any

    def options(self, **given: Any) -> DecodingOptions: ...
    def resize(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]: ...
    def decode(
        self,
        encoded: Encoded,
        options: DecodingOptions | None = None,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Caption]: ...


@dataclass
class Job:
    """One frame on its way to a caption, and what has been found out so far.

    confirm : the gate's last word, given the encoder's features; None to caption anyway
    draft : the last caption of the same camera, if it may be verified
    trust : whether drafts of this camera may be kept
    deadline : moment on ``time.monotonic`` at which decoding ends
    """

    frame: Frame
    decision: Decision
    confirm: Confirm | None = None
    draft: Draft | None = None
    trust: Trust = field(default_factory=Trust)
    deadline: float | None = None
    next_draft: Draft | None = None  # of what was decoded
    caption: Caption | None = None
    verdict: str | None = None  # of the draft: kept, refused, checked
    cosine: float | None = None
    dropped: dict[str, int] = field(default_factory=dict)  # of its camera, when it was taken
    age: float = 0.0  # seconds from capture to the begin of this work
    timings: dict[str, float] = field(default_factory=dict)


class Describer:
    """Runs a captioner on the frames of one or several cameras.

    A captioner with stages encodes the frames that are ready as one batch; with any other
    callable, ``captioner(image, channels="BGR", **decoding)``, each frame is captioned by itself,
    and there are no features, drafts or deadlines.

    near : cosine from which the last caption is verified before decoding
    """

    def __init__(self, captioner: Any, decoding: Mapping[str, Any], near: float) -> None:
        self.captioner = captioner
        self.decoding = dict(decoding)
        self._near = near
        self.staged = all(
            hasattr(captioner, name) for name in ("engine", "options", "resize", "decode")
        )
        if self.staged:
            captioner.options(**self.decoding)  # a bad one is told before the first frame
        self._verifier: Verifier | None = None

    @property
    def features(self) -> bool:
        """Whether the encoder gives features, as far as the model's manifest tells."""
        manifest = getattr(self.captioner, "manifest", None)
        if not self.staged or manifest is None:
            return False
        return any(spec.name == "features" for spec in manifest.graphs.encoder.outputs)

    def use_drafts(self) -> None:
        """Get ready to verify drafts, which takes a second decoder session, where that can be."""
        if self.features and self._near <= 1.0 and self._verifier is None:
            self._verifier = Verifier(self.captioner)

    @property
    def beams(self) -> int:
        """Beams at full quality; 1 where nobody knows."""
        if self.staged:
            return int(self.captioner.options(**self.decoding).beams)
        return int(self.decoding.get("beams") or 1)

    def describe(self, jobs: Sequence[Job], **changes: Any) -> None:
        """Fill in the jobs' captions, or their decisions where the gate stops them.

        changes : decoding options that go before the usual ones, as a governor sets them
        """
        begun = time.monotonic()
        for job in jobs:
            job.age = begun - job.frame.monotonic
        decoding = {**self.decoding, **changes}
        if not self.staged:
            for job in jobs:
                frame = job.frame
                job.caption = self.captioner(frame.image, channels=frame.channels, **decoding)
            return
        options = self.captioner.options(**decoding)
        encoded = self._encode(jobs)
        for index, job in enumerate(jobs):
            if job.confirm is not None and encoded.features is not None:
                job.decision, job.cosine = job.confirm(
                    job.frame, job.decision, encoded.features[index]
                )
        left = [index for index, job in enumerate(jobs) if job.decision.passed]
        left = [index for index in left if not self._verify(jobs[index], encoded, index, options)]
        self._decode(jobs, left, encoded, options)

    def _encode(self, jobs: Sequence[Job]) -> Encoded:
        begin = time.perf_counter()
        pictures = []
        for job in jobs:
            small = self.captioner.resize(job.frame.image)
            # Resized before the channels change places: fewer pixels to move.
            pictures.append(small[..., ::-1] if job.frame.channels == "BGR" else small)
        batch = np.stack(pictures)
        resized = time.perf_counter()
        encoded: Encoded = self.captioner.engine.encode(batch)
        done = time.perf_counter()
        for job in jobs:
            job.timings = {
                "preprocess": (resized - begin) * 1e3,
                "encode": (done - resized) * 1e3,
            }
        return encoded

    def _verify(self, job: Job, encoded: Encoded, index: int, options: DecodingOptions) -> bool:
        """Whether the last caption could be kept."""
        if (
            self._verifier is None
            or job.draft is None
            or job.cosine is None
            or job.cosine < self._near
            or job.draft.settled < SETTLED
        ):
            return False
        begin = time.perf_counter()
        kept = self._verifier.verify(job.draft, select(encoded, [index]), options)
        job.timings["verify"] = (time.perf_counter() - begin) * 1e3
        if kept is None:
            return False
        if isinstance(kept, str):
            job.verdict = kept
            return False
        job.verdict = "kept" if job.trust.keep() else "checked"
        if job.verdict == "checked":
            return False
        job.caption = self._timed(job, kept, job.timings["verify"])
        return True

    def _decode(
        self, jobs: Sequence[Job], left: list[int], encoded: Encoded, options: DecodingOptions
    ) -> None:
        if not left:
            return
        # With deadlines each picture has its own end; without, all decode as one batch.
        timed = any(jobs[index].deadline is not None for index in left)
        groups = [[index] for index in left] if timed else [left]
        returned = options.num_return_sequences
        # The runner-up is free, and a draft needs to know how far behind it was.
        drafts = self._verifier is not None and self._verifier.able
        wanted = max(returned, min(2, options.beams)) if drafts else returned
        searched = replace(options, num_return_sequences=wanted)
        for group in groups:
            first = jobs[group[0]]
            begin = time.perf_counter()
            captions = self.captioner.decode(
                select(encoded, group), searched, should_stop=stopper(first.deadline)
            )
            spent = (time.perf_counter() - begin) * 1e3
            for index, caption in zip(group, captions, strict=True):
                job = jobs[index]
                if drafts:
                    job.next_draft = _successor(job, caption, select(encoded, [index]))
                    if returned == 1:
                        caption = replace(caption, alternatives=())
                job.caption = self._timed(job, caption, spent + job.timings.get("verify", 0.0))

    def _timed(self, job: Job, caption: Caption, decode: float) -> Caption:
        stages = job.timings
        timings = replace(
            caption.timings if caption.timings else Timings(),
            preprocess=stages["preprocess"],
            encode=stages["encode"],
            decode=decode,
            total=stages["preprocess"] + stages["encode"] + decode,
        )
        return replace(caption, timings=timings)


def _successor(job: Job, caption: Caption, encoded: Encoded) -> Draft | None:
    """The draft that a searched caption leaves; what was to be checked is learnt."""
    draft = draft_of(caption, encoded)
    if draft is None or job.draft is None:
        return draft
    same = caption.tokens == job.draft.caption.tokens
    if job.verdict == "checked":
        job.trust.learn(same)
    draft.settled = job.draft.settled + 1 if same else 0
    return draft


def stopper(deadline: float | None) -> Callable[[], bool] | None:
    """Answers True when another step like the last ones would end after the deadline."""
    if deadline is None:
        return None
    last = time.monotonic()
    longest = 0.0

    def should_stop() -> bool:
        nonlocal last, longest
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        return now + longest > deadline

    return should_stop


def select(encoded: Encoded, indices: list[int]) -> Encoded:
    """The pictures of ``indices`` out of an encoded batch."""
    if len(indices) == encoded.batch:
        return encoded
    return Encoded(
        batch=len(indices),
        memory={name: value[indices] for name, value in encoded.memory.items()},
        carry={name: value[indices] for name, value in encoded.carry.items()},
        features=None if encoded.features is None else encoded.features[indices],
        novelty=None if encoded.novelty is None else encoded.novelty[indices],
    )
