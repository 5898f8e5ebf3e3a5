"""One step of beam search as ONNX nodes: ``runtime/decoding/reference.py`` for one picture.

Ties fall as they do there: ONNX says of TopK that the lower index comes first among equals, and
of ArgMax that it gives the first. Shapes: K beams, C candidates (2K, or 1 when greedy), V tokens,
L = the longest caption; rows of tokens have P = L + 1 columns: BOS, then -1 where none is yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgecap.export.single_file.nodes import Nodes
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.search import NOTHING

LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Plan:
    """What is baked into the graph.

    limit : L, the most tokens of a caption; vocab : V; positions : T, the model's own limit
    grows : whether the caches grow from step to step, or have all their K * T slots from the start
    """

    options: DecodingOptions
    special: SpecialTokens
    limit: int
    vocab: int
    positions: int
    grows: bool

    @property
    def beams(self) -> int:
        return self.options.beams

    @property
    def columns(self) -> int:
        return self.limit + 1

    def norms(self) -> np.ndarray:
        """float32 [L]: length ** length_penalty of lengths 1 to L."""
        penalty = self.options.length_penalty
        return np.array([math.pow(n, penalty) for n in range(1, self.limit + 1)], np.float32)


@dataclass(frozen=True)
class State:
    """Names of what the search carries from step to step.

    tokens int64 [K], parents int64 [K] : what the decoder takes next
    running float32 [K], sequences int64 [K, P], history float32 [K, P] : the beams that run on,
        their summed log-probability, their tokens and the log-probability of each
    pool_scores float32 [K], pool_lengths int64 [K], pool_sequences, pool_history : the finished
        ones, best first; length 0 is an empty place
    """

    tokens: str
    parents: str
    running: str
    sequences: str
    history: str
    pool_scores: str
    pool_lengths: str
    pool_sequences: str
    pool_history: str


def first_state(plan: Plan) -> dict[str, np.ndarray]:
    """What each field of ``State`` holds before the first step."""
    beams, shape = plan.beams, (plan.beams, plan.columns)
    empty = np.full(beams, NOTHING, np.float32)
    running = empty.copy()
    running[0] = 0.0
    sequences = np.full(shape, -1, np.int64)
    sequences[:, 0] = plan.special.bos
    return {
        "tokens": np.full(beams, plan.special.bos, np.int64),
        "parents": np.arange(beams, dtype=np.int64),
        "running": running,
        "sequences": sequences,
        "history": np.zeros(shape, np.float32),
        "pool_scores": empty,
        "pool_lengths": np.zeros(beams, np.int64),
        "pool_sequences": sequences,
        "pool_history": np.zeros(shape, np.float32),
    }


def search_step(g: Nodes, plan: Plan, logits: str, step: str, state: State) -> tuple[State, str]:
    """Nodes of step ``step`` (int64 []) on ``logits`` (float32 [K, V]).

    Gives the state after it, and the name of a bool [] that says whether to go on.
    """
    beams, vocab = plan.beams, plan.vocab
    clean = g("Where", g("IsNaN", logits), g.real(-np.inf), g("Min", logits, g.real(LARGEST)))
    logprobs = _process(g, plan, _log_softmax(g, clean), step, state)
    flat_logprobs = g("Reshape", logprobs, g.whole([-1]))
    if beams == 1:
        chosen = g("ArgMax", _process(g, plan, clean, step, state), axis=1, keepdims=0)
        added = g("Gather", flat_logprobs, chosen)
        scores = g("Add", added, state.running)
        parents, tokens = g.whole([0]), chosen
    else:
        running = g("Unsqueeze", state.running, g.whole([1]))
        flat = g("Reshape", g("Add", logprobs, running), g.whole([-1]))
        scores, best = g.several("TopK", 2, flat, g.whole([2 * beams]), axis=0)
        added = g("Gather", flat_logprobs, best)
        parents, tokens = g("Div", best, g.whole(vocab)), g("Mod", best, g.whole(vocab))
    last = g("Equal", step, g.whole(plan.limit - 1))
    ends = g("Or", g("Equal", tokens, g.whole(plan.special.eos)), last)
    length = g("Add", step, g.whole(1))
    column = g("Equal", g.whole(np.arange(plan.columns)), length)
    sequences = _append(g, state.sequences, parents, tokens, column)
    history = _append(g, state.history, parents, added, column)

    norm = g("Gather", g.real(plan.norms()), step)
    normalised = g("Div", scores, norm)
    if beams == 1:
        accepted = ends
    else:
        accepted = g("And", ends, g.constant(np.arange(2 * beams) < beams, np.bool_))
    nothing = g.real(NOTHING)
    normalised = g("Where", accepted, normalised, g("Add", normalised, nothing))
    lengths = g("Where", accepted, length, g.whole(0))
    # The pool's old hypotheses stand before new ones of the same score.
    joined = g("Concat", state.pool_scores, normalised, axis=0)
    pool_scores, kept = g.several("TopK", 2, joined, g.whole([beams]), axis=0)
    pools = [
        g("Gather", g("Concat", old, new, axis=0), kept)
        for old, new in (
            (state.pool_lengths, lengths),
            (state.pool_sequences, sequences),
            (state.pool_history, history),
        )
    ]

    alive = g("Where", ends, g("Add", scores, nothing), scores)
    running, on = g.several("TopK", 2, alive, g.whole([beams]), axis=0)
    after = State(
        g("Gather", tokens, on),
        g("Gather", parents, on),
        running,
        g("Gather", sequences, on),
        g("Gather", history, on),
        pool_scores,
        *pools,
    )
    if beams == 1:
        return after, g("Not", g("Squeeze", ends, g.whole([0])))
    return after, g("And", g("Not", last), _can_improve(g, plan, after, norm))


def _can_improve(g: Nodes, plan: Plan, state: State, norm: str) -> str:
    """bool []: whether a running beam may still enter the pool."""
    stopping, penalty = plan.options.early_stopping, plan.options.length_penalty
    if stopping == "never" and penalty > 0:
        norm = g.real(plan.norms()[-1])
    real = g("Greater", state.pool_lengths, g.whole(0))
    worst = g("ReduceMin", state.pool_scores, keepdims=0)
    bound = g("ReduceMin", g("Where", real, worst, g.real(NOTHING)), keepdims=0)
    reach = g("Div", g("Gather", state.running, g.whole(0)), norm)
    improves = g("Greater", reach, bound)
    if stopping is not True:
        return improves
    shortest = g("ReduceMin", state.pool_lengths, keepdims=0)
    return g("And", improves, g("Equal", shortest, g.whole(0)))


def _log_softmax(g: Nodes, logits: str) -> str:
    """[K, V]; summed in double, as there. A row of -inf stays one."""
    largest = g("ReduceMax", logits, g.whole([1]), keepdims=1)
    shifted = g("Sub", logits, g("Max", largest, g.real(-LARGEST)))
    shares = g("Exp", g("Cast", shifted, to=11))
    total = g("ReduceSum", shares, g.whole([1]), keepdims=1)
    # It is at least 1, the largest one's share, but in a row of -inf.
    total = g("Log", g("Max", total, g.constant(1.0, np.float64)))
    return g("Sub", shifted, g("Cast", total, to=1))


def _append(g: Nodes, rows: str, parents: str, values: str, column: str) -> str:
    """[C, P]: the rows of ``parents`` with ``values`` in ``column``."""
    moved = g("Gather", rows, parents)
    return g("Where", column, g("Unsqueeze", values, g.whole([1])), moved)


def _process(g: Nodes, plan: Plan, values: str, step: str, state: State) -> str:
    """The processors on [K, V], in their order."""
    options = plan.options
    if options.repetition_penalty != 1:
        penalty = g.real(options.repetition_penalty)
        seen = _seen(g, plan, state.sequences)
        scaled = g(
            "Where",
            g("Less", values, g.real(0)),
            g("Mul", values, penalty),
            g("Div", values, penalty),
        )
        values = g("Where", seen, scaled, values)
    if 0 < options.no_repeat_ngram_size <= plan.limit:
        values = _no_repeat(g, plan, values, step, state.sequences)
    banned = np.zeros((2, plan.vocab), np.bool_)
    banned[:, [token for token in options.suppress_tokens if token < plan.vocab]] = True
    banned[1, plan.special.eos] = True
    if options.min_new_tokens:
        early = g("Cast", g("Less", step, g.whole(options.min_new_tokens)), to=7)
        mask = g("Gather", g.constant(banned, np.bool_), early)
        values = g("Where", mask, g.real(-np.inf), values)
    elif banned[0].any():
        values = g("Where", g.constant(banned[0], np.bool_), g.real(-np.inf), values)
    return values


def _seen(g: Nodes, plan: Plan, sequences: str) -> str:
    """bool [K, V]: what each row has said, BOS with it."""
    # Columns that are not written yet stand for BOS, which every row has.
    said = g("Where", g("Less", sequences, g.whole(0)), g.whole(plan.special.bos), sequences)
    none = g("Expand", g.real(0), g.whole([plan.beams, plan.vocab]))
    ones = g("Expand", g.real(1), g.whole([plan.beams, plan.columns]))
    marked = g("ScatterElements", none, said, ones, axis=1, reduction="max")
    return g("Cast", marked, to=9)


def _no_repeat(g: Nodes, plan: Plan, values: str, step: str, sequences: str) -> str:
    """-inf where a token would end an n-gram that the row has already."""
    n = plan.options.no_repeat_ngram_size
    count = plan.columns - n + 1
    windows = np.arange(count)[:, None] + np.arange(n)
    final = g("Gather", sequences, g.whole(windows[:, -1]), axis=1)
    # A window that is not written to its end has -1 there.
    banned = g("GreaterOrEqual", final, g.whole(0))
    if n > 1:
        starts = g("Gather", sequences, g.whole(windows[:, :-1]), axis=1)
        places = g("Add", step, g.whole(np.arange(2 - n, 1)))
        now = g("Unsqueeze", g("Gather", sequences, places, axis=1), g.whole([1]))
        same = g("Cast", g("Equal", starts, now), to=6)
        alike = g("ReduceMin", same, g.whole([2]), keepdims=0)
        banned = g("And", banned, g("Cast", alike, to=9))
    limits = g("Where", banned, g.real(-np.inf), g.real(np.inf))
    places = g("Max", final, g.whole(0))
    return g("ScatterElements", values, places, limits, axis=1, reduction="min")
