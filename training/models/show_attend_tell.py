"""Show, Attend and Tell (Xu et al. 2015): a recurrent decoder that looks at the picture each word.

Annotation vectors are the encoder's places: every map projected to one width and summed. Soft
attention reads their expectation and is trained by back-propagation, with the doubly stochastic
term that asks every place to be looked at once. Hard attention reads one place drawn at random and
is trained by REINFORCE (Williams 1992); see ``hard_loss``. As in the paper's code, captions are
made with the expectation in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.base import (
    CaptionModel,
    Decoded,
    Encoding,
    Loss,
    Named,
    Step,
    shift,
    word_loss,
)
from edgecap.training.models.encoders.base import Frozen, ImageEncoder
from edgecap.training.models.layers import FastDropout
from edgecap.training.models.recurrent import (
    GATES,
    STATES,
    check_cell,
    check_share,
    check_sizes,
    open_forget_gate,
    update,
)

ATTENTIONS = ("soft", "hard")


@dataclass(frozen=True)
class ShowAttendTellOptions:
    """doubly : weight of the doubly stochastic term, the paper's lambda
    reinforce, entropy : weights of REINFORCE and of the entropy of alpha, hard attention only
    expected : with this probability a picture is trained on expectations instead of draws
    baseline_decay : of the moving average that REINFORCE compares with
    """

    vocab_size: int
    attention: str = "soft"  # or "hard"
    cell: str = "lstm"  # or "gru"
    width: int = 512  # E, of the word embeddings
    annotation: int = 512  # D, of the annotation vectors
    hidden: int = 512  # H, of the recurrent state
    scores: int = 256  # A, of the layer that scores a place
    tied: bool = True  # the output matrix is the embedding
    max_positions: int = 20  # T, EOS counted
    dropout: float = 0.4
    doubly: float = 1.0
    reinforce: float = 1.0
    entropy: float = 0.002
    expected: float = 0.5
    baseline_decay: float = 0.9

    def __post_init__(self) -> None:
        check_cell(self.cell)
        sizes = ("vocab_size", "width", "annotation", "hidden", "scores", "max_positions")
        check_sizes(self, *sizes)
        check_share(self, "dropout", "expected", "baseline_decay")
        if self.attention not in ATTENTIONS:
            raise DataError(f"attention is {self.attention!r}; give one of {', '.join(ATTENTIONS)}")
        for name in ("doubly", "reinforce", "entropy"):
            if not getattr(self, name) >= 0:
                raise DataError(f"{name} is {getattr(self, name)!r}; give 0 or more")


@dataclass
class Look:
    """Where one step looked.

    context : [B, R, D], the gated sum of annotation vectors
    alpha : float32 [B, R, N]
    chosen : float32 [B, R], log-probability of the place that was drawn; None where none was
    """

    context: torch.Tensor
    alpha: torch.Tensor
    chosen: torch.Tensor | None


@dataclass
class Unrolled:
    """Teacher forcing with all that the losses need: hidden [B, C, L, E], alpha [B, C, L, N] and
    chosen [B, C, L], as in :class:`Look`."""

    hidden: torch.Tensor
    alpha: torch.Tensor
    chosen: torch.Tensor | None


class ShowAttendTell(CaptionModel):
    """uint8 pictures to captions; see the module's docstring."""

    family = "show-attend-tell"
    options: ShowAttendTellOptions
    baseline: torch.Tensor

    def __init__(self, options: ShowAttendTellOptions, backbone: ImageEncoder) -> None:
        super().__init__(options, backbone)
        d, h, e = options.annotation, options.hidden, options.width
        gates = GATES[options.cell] * h
        self.project = nn.ModuleDict({n: nn.Linear(c, d) for n, c in backbone.widths.items()})
        self.annotation_norm = nn.LayerNorm(d)
        self.first = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, h), nn.Tanh())
                for name in STATES[options.cell]
            }
        )
        self.embed = nn.Embedding(options.vocab_size, e)
        self.score_place = nn.Linear(d, options.scores)
        self.score = nn.Linear(options.scores, 1, bias=False)  # softmax is blind to a bias
        # One product of h a step: its part of the scores, the gate beta, and the cell's gates.
        self.from_state = nn.Linear(h, options.scores + 1 + gates)
        self.from_word = nn.Linear(e, gates)
        self.from_context = nn.Linear(d, gates, bias=False)
        self.read_state = nn.Linear(h, e)
        self.read_context = nn.Linear(d, e, bias=False)
        self.dropout = FastDropout(options.dropout)
        self.output = None if options.tied else nn.Linear(e, options.vocab_size)
        nn.init.uniform_(self.embed.weight, -0.1, 0.1)
        if options.cell == "lstm":
            open_forget_gate(self.from_word.bias, h)
        # Mean log-probability of a word; starts at that of a decoder that knows nothing.
        start = -torch.tensor(float(options.vocab_size)).log()
        self.register_buffer("baseline", start)

    # ---- the contract ------------------------------------------------------------------------

    def encode(self, frozen: Frozen) -> Encoding:
        """memory: annotation [B, N, D] and score [B, N, A], what it gives to the scores;
        carry: h and, of an LSTM, c, [B, H] each, by an MLP of the mean annotation."""
        features = self.backbone(frozen)
        x = sum(layer(features.maps[name]) for name, layer in self.project.items())
        x = self.dropout(self.annotation_norm(x))
        mean = x.mean(1)
        carry = {name: mlp(mean).float() for name, mlp in self.first.items()}
        memory = {"annotation": x, "score": self.score_place(x)}
        return Encoding(memory, carry, features.pooled)

    def decode(
        self, encoding: Encoding, tokens: torch.Tensor, *, attention: bool = False
    ) -> Decoded:
        """In training hard attention draws its places, and ``attention`` is what it drew from."""
        unrolled = self._unroll(encoding, tokens, self._draws(tokens))
        return Decoded(unrolled.hidden, unrolled.alpha if attention else None)

    def step(
        self,
        tokens: torch.Tensor,
        position: torch.Tensor,
        ancestry: torch.Tensor,
        memory: Named,
        carry: Named,
        cache: Named,
    ) -> Step:
        words = self.embed(tokens)
        state, look = self._advance(self.from_word(words), carry, memory)
        return Step(self.logits(self._read(words, state["h"], look.context)), state)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        if self.output is None:
            return F.linear(hidden, self.embed.weight)
        logits: torch.Tensor = self.output(hidden)
        return logits

    # ---- losses ------------------------------------------------------------------------------

    def loss(self, encoding: Encoding, tokens: torch.Tensor, smoothing: float) -> Loss:
        """Cross-entropy a word, plus the other terms of a caption over its words. ``parts`` are
        the weighted terms; of hard attention also the baseline."""
        inputs, targets, kept = shift(tokens)
        draws = self._draws(inputs)
        unrolled = self._unroll(encoding, inputs, draws)
        doubly = self.options.doubly * doubly_stochastic(unrolled.alpha, kept)
        if self.options.attention == "soft":
            words = word_loss(self, unrolled.hidden, targets, kept, smoothing)
            parts = {"words": words, "doubly": doubly}
            return _total(parts)
        logits = self.logits(unrolled.hidden[kept]).float()
        words = F.cross_entropy(logits, targets[kept], label_smoothing=smoothing)
        entropy = -self.options.entropy * mean_entropy(unrolled.alpha, kept)
        parts = {"words": words, "doubly": doubly, "entropy": entropy}
        if draws is not None and unrolled.chosen is not None and bool(draws.any()):
            with torch.no_grad():
                known = torch.zeros(kept.shape, device=kept.device)
                known[kept] = -F.cross_entropy(logits, targets[kept], reduction="none")
            parts["reinforce"] = self.options.reinforce * hard_loss(
                known, unrolled.chosen, kept, draws, self.baseline
            )
            seen = known[draws][kept[draws]].mean()
            self.baseline.lerp_(seen, 1 - self.options.baseline_decay)
        made = _total(parts)
        made.parts["baseline"] = float(self.baseline)
        return made

    # ---- the decoder -------------------------------------------------------------------------

    def _draws(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """bool [B]: the pictures whose places are drawn; None where none are."""
        if not self.training or self.options.attention == "soft":
            return None
        return torch.rand(len(tokens), device=tokens.device) >= self.options.expected

    def _unroll(
        self, encoding: Encoding, tokens: torch.Tensor, draws: torch.Tensor | None
    ) -> Unrolled:
        words = self.dropout(self.embed(tokens))
        state = {
            name: value[:, None].expand(-1, tokens.shape[1], -1)
            for name, value in encoding.carry.items()
        }
        hidden, looks = [], []
        for inputs in self.from_word(words).unbind(2):
            state, look = self._advance(inputs, state, encoding.memory, draws)
            hidden.append(state["h"])
            looks.append(look)
        context = torch.stack([look.context for look in looks], 2)
        chosen = [look.chosen for look in looks if look.chosen is not None]
        return Unrolled(
            self._read(words, torch.stack(hidden, 2), context),
            torch.stack([look.alpha for look in looks], 2),
            torch.stack(chosen, 2) if chosen else None,
        )

    def _advance(
        self,
        inputs: torch.Tensor,
        state: Named,
        memory: Named,
        draws: torch.Tensor | None = None,
    ) -> tuple[Named, Look]:
        """One word of R rows a picture: inputs [B, R, G * H], state [B, R, H]. The rows of a
        picture share its memory."""
        sides = [self.options.scores, 1, inputs.shape[-1]]
        query, gate, recurrent = self.from_state(state["h"]).split(sides, -1)
        seen = (query[:, :, None] + memory["score"][:, None]).tanh_()
        alpha = self.score(seen).squeeze(-1).float().softmax(-1)
        weights, chosen = alpha, None
        if draws is not None:
            place = torch.multinomial(alpha.detach().flatten(0, 1), 1).view(*alpha.shape[:2], 1)
            chosen = alpha.gather(-1, place).squeeze(-1).log()
            drawn = torch.zeros_like(alpha).scatter_(-1, place, 1.0)
            weights = torch.where(draws[:, None, None], drawn, alpha)
        context = gate.sigmoid() * (weights @ memory["annotation"])
        inputs = inputs + self.from_context(context)
        return update(self.options.cell, inputs, recurrent, state), Look(context, alpha, chosen)

    def _read(
        self, words: torch.Tensor, hidden: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        """The deep output layer (Pascanu et al. 2014) up to the output matrix, [..., E]."""
        read = self.read_state(self.dropout(hidden)) + self.read_context(context)
        return self.dropout((words + read).tanh())


def doubly_stochastic(alpha: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Sum over captions and places of (1 - sum over words of alpha)^2, over the number of words.

    alpha : [B, C, L, N]; kept : bool [B, C, L], the real words; a caption without any is left out
    """
    looked = (alpha * kept[..., None]).sum(2)
    return ((1 - looked).square().sum(-1) * kept.any(-1)).sum() / kept.sum()


def mean_entropy(alpha: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Mean entropy of alpha [B, C, L, N] at the kept words, in nats."""
    alpha = alpha[kept]
    return -(alpha * alpha.clamp_min(1e-20).log()).sum(-1).mean()


def hard_loss(
    known: torch.Tensor,
    chosen: torch.Tensor,
    kept: torch.Tensor,
    draws: torch.Tensor,
    baseline: torch.Tensor,
) -> torch.Tensor:
    """REINFORCE's part of the gradient of -E[log p(words | places)] a word; its value is 0.

    known : [B, C, L], log-probability of each word, no gradient; 0 where not kept
    chosen : [B, C, L], log-probability of each place that was drawn
    draws : bool [B], the pictures with drawn places
    baseline : [], mean log-probability of a word, known before these places were drawn

    A place is answerable for its own word and those after it alone: earlier words do not depend on
    it, so that leaving them out, as subtracting the baseline, changes the variance and not the
    mean.
    """
    advantage = (known - baseline) * kept * draws[:, None, None]
    advantage = advantage.flip(-1).cumsum(-1).flip(-1)
    term = -(advantage * chosen * kept).sum() / kept.sum()
    return term - term.detach()


def _total(parts: dict[str, torch.Tensor]) -> Loss:
    total = torch.stack([part.float() for part in parts.values()]).sum()
    return Loss(total, {name: float(part.detach()) for name, part in parts.items()})
