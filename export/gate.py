"""The gate: an exported model must say what its source says, or it does not leave.

In float the tokens must be identical and the logits within 1e-3. Quantised, CIDEr must stay within
a share of the float model's; without people's captions, the next-token choices and probabilities
along the float model's captions must agree within bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgecap.export.measure import caption_all
from edgecap.export.photographs import Photographs
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.engines.base import Encoded, Engine
from edgecap.runtime.errors import DataError, OptionsError
from edgecap.runtime.image import RGB
from edgecap.training.metrics import evaluate
from edgecap.training.progress import track

Reference = Callable[[Sequence[RGB], int], list[list[int]]]


@dataclass(frozen=True)
class GateOptions:
    """Bounds of the checks.

    max_drop : of CIDEr, as a share of the float model's
    logits : largest difference of a float export's logits from its source's
    agreement : share of the float model's greedy choices that a quantised one must share
    nats : mean absolute difference of the log-probabilities of the float model's tokens
    beams : widths at which a float export's tokens are compared with its source's
    """

    max_drop: float = 0.01
    logits: float = 1e-3
    agreement: float = 0.9
    nats: float = 0.15
    beams: tuple[int, ...] = (1, 4)

    def __post_init__(self) -> None:
        for name in ("max_drop", "logits", "nats"):
            if not getattr(self, name) >= 0:
                raise OptionsError(f"{name} is {getattr(self, name)!r}; give 0 or more")
        if not 0 <= self.agreement <= 1:
            raise OptionsError(f"agreement is {self.agreement!r}; give a share from 0 to 1")


@dataclass(frozen=True)
class Check:
    """One figure and its bound; ``limit`` says which side of ``bound`` is good.

    scores : precision -> metric -> value, where the figure compares scores
    """

    name: str
    value: float
    bound: float
    limit: str  # "most" or "least"
    detail: str = ""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return self.value <= self.bound if self.limit == "most" else self.value >= self.bound

    def __str__(self) -> str:
        verdict = "passed" if self.passed else "FAILED"
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.name} {self.value:.4g}, at {self.limit} {self.bound:.4g}: {verdict}{detail}"


def check_float(
    captioner: Captioner,
    engine: Engine,
    reference: Reference,
    photographs: Sequence[RGB],
    options: GateOptions,
) -> list[Check]:
    """A float bundle against its source: tokens at every width of ``options.beams``, and logits.

    engine : the source's own graphs behind the engine contract
    reference : what the source says of each picture at a beam width; see ``tokens``
    photographs : uint8 RGB [H, W, 3]
    """
    checks = []
    greedy: list[list[int]] = []
    for beams in options.beams:
        theirs = reference(photographs, beams)
        ours = tokens(captioner, photographs, beams)
        greedy = greedy or theirs
        different = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b]
        share = len(different) / max(1, len(photographs))
        first = f"first at photograph {different[0] + 1}" if different else ""
        detail = f"{len(photographs)} photographs{', ' if first else ''}{first}"
        checks.append(Check(f"captions that differ, {beams} beams", share, 0.0, "most", detail))
    bos = captioner.manifest.tokenizer.bos
    worst = 0.0
    for picture, caption in zip(track(photographs, "logits"), greedy, strict=True):
        pixels = captioner.resize(picture)
        rows = [bos, *caption[:-1]]
        right, given = (along(one, pixels, rows) for one in (engine, captioner.engine))
        worst = max(worst, float(np.abs(right - given).max()))
    checks.append(Check("largest difference of a logit", worst, options.logits, "most"))
    return checks


def check_quantised(
    right: Captioner, small: Captioner, photographs: Photographs, options: GateOptions
) -> list[Check]:
    """A quantised bundle against the float one of the same model."""
    if photographs.captioned:
        return [_cider(right, small, photographs, options)]
    bos = right.manifest.tokenizer.bos
    shared = total = 0
    apart = 0.0
    pictures = photographs.pixels()
    for picture in track(pictures, "agreement"):
        caption = tokens(right, [picture], 1)[0]
        rows = [bos, *caption[:-1]]
        a, b = (along(one.engine, one.resize(picture), rows) for one in (right, small))
        shared += int((a.argmax(-1) == b.argmax(-1)).sum())
        total += len(rows)
        places = np.arange(len(caption))
        logp = [_log_softmax(one)[places, caption] for one in (a, b)]
        apart += float(np.abs(logp[0] - logp[1]).sum())
    count = f"{len(pictures)} photographs"
    return [
        Check("greedy choices shared", shared / total, options.agreement, "least", count),
        Check("mean difference of a log-probability", apart / total, options.nats, "most", count),
    ]


def _cider(
    right: Captioner, small: Captioner, photographs: Photographs, options: GateOptions
) -> Check:
    references = {image.id: list(image.captions) for image in photographs.images}
    scores = []
    for captioner in (right, small):
        texts = caption_all(captioner, photographs.pixels()).texts
        found = {i.id: text for i, text in zip(photographs.images, texts, strict=True)}
        scores.append(evaluate(found, references).corpus)
    where = f"{len(photographs)} of {photographs.name}"
    return cider_drop(scores[0], scores[1], where, options)


def cider_drop(
    right: Mapping[str, float], small: Mapping[str, float], where: str, options: GateOptions
) -> Check:
    """The share of the float model's CIDEr that the quantised one lacks, from their scores."""
    before, after = right["CIDEr"], small["CIDEr"]
    drop = 1 - after / before if before > 0 else 0.0
    detail = f"{before:.4f} to {after:.4f} on {where}"
    scores = {"fp32": right, "quantised": small}
    return Check("drop of CIDEr", drop, options.max_drop, "most", detail, scores)


def demand(checks: Sequence[Check], name: str) -> None:
    """Raises ``DataError`` with the figures where a check failed."""
    failed = [str(check) for check in checks if not check.passed]
    if failed:
        raise DataError(
            f"{name} is not exported, since it would not say the same: {'; '.join(failed)}. "
            "Give more photographs, a smaller --budget, another --precision or a wider bound"
        )


def tokens(captioner: Captioner, photographs: Sequence[RGB], beams: int) -> list[list[int]]:
    """Each picture's best sentence as token ids without BOS, EOS included where it ended."""
    options = replace(captioner.options(beams=beams), num_return_sequences=1)
    found = []
    for picture in track(photographs, f"captions, {beams} beams"):
        best = captioner.search(captioner.encode(picture), options).hypotheses[0][0]
        found.append([int(token) for token in best.tokens])
    return found


def along(
    engine: Engine, pixels: npt.NDArray[np.uint8], rows: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Logits float32 [L, V] of one picture, uint8 [S, S, 3], with the tokens ``rows`` given."""
    return np.concatenate(list(_steps(engine, engine.encode(pixels[None]), rows)))


def _steps(
    engine: Engine, encoded: Encoded, rows: Sequence[int]
) -> Iterator[npt.NDArray[np.float32]]:
    runner = engine.begin(encoded, 1)
    parents = np.zeros(1, np.int64)
    for position, token in enumerate(rows[: engine.max_positions]):
        seen = np.arange(engine.max_positions)[None] < position
        yield runner.step(np.array([token], np.int64), position, parents, seen).copy()


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    shifted = logits - logits.max(-1, keepdims=True)
    result: npt.NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result
