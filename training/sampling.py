"""Random captions of a model, with its own step and caches: what reinforcement learns from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.utils import parametrize

from edgecap.training.models.base import CaptionModel, Encoding
from edgecap.training.vocabulary import BOS, EOS, PAD


@torch.no_grad()
@parametrize.cached()
def sample(
    model: CaptionModel,
    encoding: Encoding,
    captions: int,
    *,
    temperature: float = 1.0,
    suppressed: Sequence[int] = (),
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draw ``captions`` captions of each picture, int64 [B, C, T]: words, EOS, PAD.

    temperature : of the distribution that is drawn from; 0 takes the likeliest word
    suppressed : tokens that are never drawn

    A caption that reaches T words has no EOS.
    """
    device, batch = encoding.pooled.device, len(encoding.pooled)
    longest = model.options.max_positions
    cache = {
        name: torch.zeros(batch, captions * longest, width, device=device)
        for name, width in model.cache_widths().items()
    }
    carry = {
        name: value[:, None].expand(-1, captions, *value.shape[1:])
        for name, value in encoding.carry.items()
    }
    # Slot t * C + c is row c's own at every step: rows never change their parent.
    own = torch.eye(captions, dtype=torch.bool, device=device).repeat(1, longest)
    own = own.expand(batch, captions, captions * longest)
    last = torch.full((batch, captions), BOS, dtype=torch.int64, device=device)
    ended = torch.zeros(batch, captions, dtype=torch.bool, device=device)
    rows = torch.full((batch, captions, longest), PAD, dtype=torch.int64, device=device)
    for t in range(longest):
        used = t * captions
        found = model.step(
            last,
            torch.tensor(t, device=device),
            own[:, :, :used],
            encoding.memory,
            carry,
            {name: value[:, :used] for name, value in cache.items()},
        )
        for name, value in found.append.items():
            cache[name][:, used : used + captions] = value
        carry = found.carry
        logits = found.logits.float()
        logits[..., list(suppressed)] = -torch.inf
        if temperature == 0:
            last = logits.argmax(-1)
        else:
            last = _draw((logits / temperature).softmax(-1), generator)
        last = last.masked_fill(ended, PAD)
        rows[:, :, t] = last
        ended |= last == EOS
        if bool(ended.all()):
            break
    return rows


def _draw(chances: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
    """One index of each distribution [..., V]: where a uniform number falls among the sums, several
    times faster on a CPU than ``torch.multinomial``."""
    sums = chances.cumsum(-1)
    uniform = torch.rand(sums.shape[:-1], generator=generator, device=sums.device)
    place = torch.searchsorted(sums, (uniform * sums[..., -1])[..., None], right=True)
    # Rounding can put the number on the very end, past the last word that may be drawn.
    return place[..., 0].clamp(max=sums.shape[-1] - 1)
