"""Self-critical training of any captioner: CIDEr-D is the reward (Rennie et al. 2017; Luo 2020).

Captions are drawn from the model, scored against people's, and made likelier or less likely by how
much better they are than a baseline: the greedy caption, or the mean of the picture's other draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from edgecap.runtime.errors import OptionsError
from edgecap.training.metrics.cider_d import CiderD
from edgecap.training.models.base import CaptionModel, Encoding, Loss, shift, word_loss
from edgecap.training.objectives import Batch
from edgecap.training.sampling import sample
from edgecap.training.validate import SUPPRESSED
from edgecap.training.vocabulary import BOS, EOS, PAD

BASELINES = ("others", "greedy")


@dataclass(frozen=True)
class SelfCriticalOptions:
    """How captions are drawn and judged.

    baseline : "others", the mean reward of a picture's other draws, or "greedy"
    captions : draws a picture
    temperature : of the draws and of the probabilities that are learned. A model that was trained
        with label smoothing has a heavy tail: at 1 its draws are poor and short captions win
    cross_entropy : share of people's captions in the loss
    kl : weight of the distance to the model that it starts from, estimated on the draws
    dropout : keep dropout in what is learned from. Without it the probabilities are those that the
        draws were made with; with it a small data set is learned less by heart
    """

    baseline: str = "others"
    captions: int = 5
    temperature: float = 0.5
    cross_entropy: float = 0.0
    kl: float = 0.0
    dropout: bool = False

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise OptionsError(f"baseline is {self.baseline!r}; give one of {', '.join(BASELINES)}")
        if self.captions < (2 if self.baseline == "others" else 1):
            raise OptionsError(
                f"{self.captions} captions a picture; the baseline 'others' needs at least 2, "
                "'greedy' 1"
            )
        if self.temperature <= 0 or not 0 <= self.cross_entropy < 1 or self.kl < 0:
            raise OptionsError(
                f"temperature {self.temperature}, cross_entropy {self.cross_entropy}, kl {self.kl};"
                " give a temperature above 0, a share from 0 to below 1 and a weight of 0 or more"
            )


class SelfCritical:
    """The objective: minus the expected reward, as its score-function gradient.

    references : int64 [N, C, T + 1], the corpus that the batches index; EOS counts as a word, so
        that where a caption ends is judged, too
    start : the model as it was, for ``kl``; needed when that is above 0
    broken : tokens that no caption may end on, such as articles. People's n-grams hold them, so
        that "... in front of a" would pay
    """

    def __init__(
        self,
        references: np.ndarray,
        options: SelfCriticalOptions,
        *,
        smoothing: float = 0.0,
        start: CaptionModel | None = None,
        broken: Sequence[int] = (),
    ) -> None:
        if options.kl > 0 and start is None:
            raise OptionsError("kl is above 0; give the model that it starts from")
        self.options, self.smoothing, self.start = options, smoothing, start
        self.broken = np.array(broken, np.int64)
        self.rewards = CiderD(
            [[_words(caption) for caption in captions] for captions in references.tolist()]
        )

    def __call__(self, model: CaptionModel, batch: Batch) -> Loss:
        o = self.options
        model.eval()
        encoding = model.encode(batch.frozen)
        fixed = _detached(encoding)
        rows = sample(model, fixed, o.captions, temperature=o.temperature, suppressed=SUPPRESSED)
        reward = self._reward(batch.images, rows)
        if o.baseline == "greedy":
            best = sample(model, fixed, 1, temperature=0, suppressed=SUPPRESSED)
            baseline = self._reward(batch.images, best)
        else:
            baseline = (reward.sum(1, keepdims=True) - reward) / (o.captions - 1)
        if o.dropout:
            model.train()
            encoding = model.encode(batch.frozen)
        advantage = torch.from_numpy(reward - baseline).float().to(rows.device)
        logp, kept = self._log_probabilities(model, encoding, rows)
        weights = advantage[..., None].expand_as(kept)[kept]
        # A constant in place of the number of words, which depends on the draws, keeps the gradient
        # that of the expected reward.
        total = -(weights * logp).sum() / (rows.shape[0] * o.captions * model.options.max_positions)
        parts = {"reward": float(reward.mean()), "drawn_words": float(kept.sum(-1).float().mean())}
        if o.baseline == "greedy":
            parts["greedy_reward"] = float(baseline.mean())
        if o.kl > 0 and self.start is not None:
            with torch.no_grad():
                known = self.start.encode(batch.frozen)
                before, _ = self._log_probabilities(self.start, known, rows)
            ratio = before - logp
            distance = (ratio.exp() - 1 - ratio).mean()  # Schulman's low-variance estimate
            total = total + o.kl * distance
            parts["kl"] = float(distance.detach())
        if o.cross_entropy > 0:
            inputs, targets, kept = shift(batch.tokens)
            hidden = model.decode(encoding, inputs).hidden
            people = word_loss(model, hidden, targets, kept, self.smoothing)
            total = (1 - o.cross_entropy) * total + o.cross_entropy * people
            parts["people"] = float(people.detach())
        return Loss(total, parts)

    def weigh(self, images: np.ndarray, words: np.ndarray) -> int:
        """The mean is taken over pictures: what the parts of a shared batch are weighted by."""
        return len(images)

    def _reward(self, images: np.ndarray, rows: torch.Tensor) -> np.ndarray:
        """CIDEr-D of [B, C, T] draws, float64 [B, C]; nothing for one that breaks off."""
        batch, captions, length = rows.shape
        flat = rows.reshape(-1, length).cpu().numpy()
        lengths = (flat != PAD).sum(-1)
        scores = self.rewards.score(np.repeat(images, captions), flat, lengths)
        last = np.take_along_axis(flat, np.maximum(lengths - 2, 0)[:, None], 1)[:, 0]
        ended = (flat == EOS).any(-1)
        scores[ended & np.isin(last, self.broken)] = 0.0
        return scores.reshape(batch, captions)

    def _log_probabilities(
        self, model: CaptionModel, encoding: Encoding, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every drawn token that is no padding, under the distribution it was drawn from."""
        first = torch.full_like(rows[..., :1], BOS)
        inputs, targets, kept = shift(torch.cat([first, rows], -1))
        logits = model.logits(model.decode(encoding, inputs).hidden[kept]).float()
        logits[..., list(SUPPRESSED)] = -1e9
        logp = (logits / self.options.temperature).log_softmax(-1)
        return logp.gather(-1, targets[kept][:, None])[:, 0], kept


@dataclass
class CollapseGuard:
    """Tells when self-critical training goes astray; rewards alone do not.

    start : validation scores of the model that it starts from; the first it is given without
    drop : of CIDEr below the best so far
    shorter : smallest allowed ratio of the mean length to that at the start
    endings : largest allowed share of captions that end on an article or "with", "of", "and"
    """

    start: dict[str, float] | None = None
    drop: float = 0.03
    shorter: float = 0.85
    endings: float = 0.01
    best: float = 0.0

    def __call__(self, scores: dict[str, float]) -> str | None:
        if self.start is None:
            self.start = scores
        self.best = max(self.best, self.start["CIDEr"], scores["CIDEr"])
        if scores["CIDEr"] < self.best - self.drop:
            return f"validation CIDEr fell from {self.best:.3f} to {scores['CIDEr']:.3f}"
        if scores["words"] < self.shorter * self.start["words"]:
            return f"captions shrank from {self.start['words']:.1f} to {scores['words']:.1f} words"
        if scores["endings"] > max(self.endings, self.start["endings"]):
            return f"{scores['endings']:.1%} of the captions end on a function word"
        return None


def _words(row: Sequence[int]) -> list[int]:
    """A corpus row without BOS and padding, EOS kept."""
    return [token for token in row if token not in (PAD, BOS)]


def _detached(encoding: Encoding) -> Encoding:
    return Encoding(
        {name: value.detach() for name, value in encoding.memory.items()},
        {name: value.detach() for name, value in encoding.carry.items()},
        encoding.pooled.detach(),
    )
