"""LSTM and GRU cells of the recurrent captioners: one meaning for a step and for a sequence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgecap.runtime.errors import DataError
from edgecap.training.models.base import Named

# Cell -> the names of its state, each [..., H], and how many gates of width H it has.
STATES = {"lstm": ("h", "c"), "gru": ("h",)}
GATES = {"lstm": 4, "gru": 3}


def check_cell(cell: str) -> None:
    """Raises DataError for a cell that does not exist."""
    if cell not in STATES:
        raise DataError(f"cell is {cell!r}; give one of {', '.join(STATES)}")


def check_sizes(options: object, *names: str) -> None:
    """Raises DataError for a field that is no whole number of 1 or more."""
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, int) or value < 1:
            raise DataError(f"{name} is {value!r}; give a whole number of 1 or more")


def check_share(options: object, *names: str) -> None:
    """Raises DataError for a field that is no number from 0 to 1."""
    for name in names:
        value = getattr(options, name)
        if not isinstance(value, int | float) or not 0 <= value <= 1:
            raise DataError(f"{name} is {value!r}; give a number from 0 to 1")


def open_forget_gate(bias: torch.Tensor, width: int) -> None:
    """Start an LSTM that remembers: a bias of 1 for its forget gate (Jozefowicz et al. 2015)."""
    with torch.no_grad():
        bias[width : 2 * width].fill_(1.0)


def update(cell: str, inputs: torch.Tensor, recurrent: torch.Tensor, state: Named) -> Named:
    """The state after one input; gates in the order of ``torch.nn.LSTM`` and ``torch.nn.GRU``.

    inputs, recurrent : [..., G * H], what the input and the last h give to the gates, biases added
    state : "h" and, of an LSTM, "c", [..., H] each
    """
    if cell == "lstm":
        i, f, g, o = (inputs + recurrent).chunk(4, -1)
        c = f.sigmoid() * state["c"] + i.sigmoid() * g.tanh()
        return {"h": o.sigmoid() * c.tanh(), "c": c}
    reset, keep, new = inputs.chunk(3, -1)
    reset_h, keep_h, new_h = recurrent.chunk(3, -1)
    new = (new + (reset + reset_h).sigmoid() * new_h).tanh()
    return {"h": new + (keep + keep_h).sigmoid() * (state["h"] - new)}


class Recurrent(nn.Module):
    """One layer of LSTM or GRU: whole sequences by torch's own, steps by :func:`update`."""

    def __init__(self, cell: str, inputs: int, width: int) -> None:
        super().__init__()
        self.cell, self.width = cell, width
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.layer = kind(inputs, width, batch_first=True)
        if cell == "lstm":
            open_forget_gate(self.layer.all_weights[0][2], width)

    def begin(self, x: torch.Tensor) -> Named:
        """The state after a first input [B, E] on a state of zeros."""
        weight, _, bias, bias_h = self.layer.all_weights[0]
        inputs = F.linear(x, weight, bias)
        zeros = torch.zeros(*x.shape[:-1], self.width, device=x.device)
        state = dict.fromkeys(STATES[self.cell], zeros)
        return update(self.cell, inputs, bias_h, state)

    def step(self, x: torch.Tensor, state: Named) -> Named:
        """One input [..., E] on a state [..., H]."""
        weight, weight_h, bias, bias_h = self.layer.all_weights[0]
        recurrent = F.linear(state["h"], weight_h, bias_h)
        return update(self.cell, F.linear(x, weight, bias), recurrent, state)

    def forward(self, x: torch.Tensor, state: Named) -> torch.Tensor:
        """h after every input: x [R, L, E] on a state [R, H] -> [R, L, H]."""
        first = tuple(state[name][None].contiguous() for name in STATES[self.cell])
        hidden: torch.Tensor = self.layer(x, first if self.cell == "lstm" else first[0])[0]
        return hidden
