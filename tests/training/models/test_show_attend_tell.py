"""Show, Attend and Tell: attention, its losses against formulas, and that both kinds learn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tiny_encoder  # noqa: E402
from tiny_encoder import TinyEncoder, pictures  # noqa: E402

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.base import shift  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.models.show_attend_tell import (  # noqa: E402
    ShowAttendTell,
    ShowAttendTellOptions,
    doubly_stochastic,
    mean_entropy,
)

TOKENS = [[[1, 4, 5, 6, 2], [1, 9, 2, 0, 0]], [[1, 7, 2, 0, 0], [1, 8, 11, 2, 0]]]


def made(**options: Any) -> ShowAttendTell:
    torch.manual_seed(0)
    defaults = {"vocab_size": 23, "width": 16, "annotation": 12, "hidden": 14, "scores": 8}
    given = ShowAttendTellOptions(**{**defaults, "max_positions": 7, **options})
    return ShowAttendTell(given, TinyEncoder()).eval()


def encode(model: ShowAttendTell, count: int = 2) -> Any:
    return model.encode(model.frozen(torch.from_numpy(pictures(count))))


@pytest.mark.parametrize("attention", ["soft", "hard"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("tied", [True, False])
def test_steps_equal_teacher_forcing_along_changing_beams(
    attention: str, cell: str, tied: bool
) -> None:
    model = made(attention=attention, cell=cell, tied=tied)
    tiny_encoder.check_steps_equal_teacher_forcing(model)


def test_the_attention_of_the_paper_word_by_word() -> None:
    """Equations 4 to 6, 9 and the gate beta, written out in numpy for the first word."""
    model = made()
    tokens = torch.tensor(TOKENS)[:, :, :-1]
    with torch.no_grad():
        encoding = encode(model)
        decoded = model.decode(encoding, tokens, attention=True)
    assert decoded.attention.shape == (2, 2, 4, 4)
    np.testing.assert_allclose(decoded.attention.sum(-1), 1, rtol=1e-5)
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    a, h = encoding.memory["annotation"][0].numpy(), encoding.carry["h"][0].numpy()
    c = encoding.carry["c"][0].numpy()
    from_h = w["from_state.weight"] @ h + w["from_state.bias"]
    keys = a @ w["score_place.weight"].T + w["score_place.bias"]
    scores = np.tanh(keys + from_h[:8]) @ w["score.weight"][0]
    alpha = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(decoded.attention[0, 1, 0], alpha, rtol=1e-5)
    z = (alpha @ a) / (1 + np.exp(-from_h[8]))
    word = w["embed.weight"][1]
    gates = w["from_word.weight"] @ word + w["from_word.bias"] + from_h[9:]
    i, f, g, o = np.split(gates + w["from_context.weight"] @ z, 4)
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    h = sigmoid(o) * np.tanh(sigmoid(f) * c + sigmoid(i) * np.tanh(g))
    read = w["read_state.weight"] @ h + w["read_state.bias"] + w["read_context.weight"] @ z
    np.testing.assert_allclose(decoded.hidden[0, 1, 0], np.tanh(word + read), atol=1e-6)


def test_attention_comes_only_when_asked_for() -> None:
    model = made()
    assert model.decode(encode(model), torch.tensor(TOKENS)).attention is None


def test_the_doubly_stochastic_term_by_hand() -> None:
    rng = np.random.default_rng(0)
    alpha = rng.dirichlet(np.ones(5), (2, 3, 4))
    kept = np.array([[[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]], [[1, 1, 0, 0]] * 3], bool)
    total = 0.0
    for b, c in itertools.product(range(2), range(3)):
        words = np.flatnonzero(kept[b, c])
        if len(words):
            total += sum((1 - sum(alpha[b, c, t, i] for t in words)) ** 2 for i in range(5))
    found = doubly_stochastic(torch.from_numpy(alpha), torch.from_numpy(kept))
    assert float(found) == pytest.approx(total / kept.sum())


def test_entropy_is_that_of_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    alpha = np.random.default_rng(0).dirichlet(np.ones(5), (1, 2, 3))
    kept = np.array([[[1, 1, 0], [1, 0, 0]]], bool)
    found = mean_entropy(torch.from_numpy(alpha), torch.from_numpy(kept))
    assert float(found) == pytest.approx(special.entr(alpha[kept]).sum(-1).mean())


def test_the_soft_loss_is_the_sum_of_its_parts() -> None:
    model, tokens = made(doubly=0.7), torch.tensor(TOKENS)
    inputs, targets, kept = shift(tokens)
    with torch.no_grad():
        loss = model.loss(encode(model), tokens, 0.0)
        decoded = model.decode(encode(model), inputs, attention=True)
    logp = model.logits(decoded.hidden).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
    words = -float(logp[kept].mean().detach())
    doubly = 0.7 * float(doubly_stochastic(decoded.attention, kept))
    assert loss.parts == {"words": pytest.approx(words), "doubly": pytest.approx(doubly)}
    assert float(loss.total) == pytest.approx(words + doubly)


@pytest.mark.parametrize("attention", ["soft", "hard"])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_gradient_reaches_everything(attention: str, cell: str) -> None:
    torch.manual_seed(3)
    # The entropy term is off and every place is drawn: scores are reached by REINFORCE alone.
    model = made(attention=attention, cell=cell, dropout=0.0, entropy=0, doubly=0, expected=0)
    tiny_encoder.check_everything_is_reached(model, torch.tensor(TOKENS))


def tiny_hard(**options: Any) -> tuple[ShowAttendTell, Any, torch.Tensor]:
    """A hard model that draws everywhere, one picture's encoding and one caption of two words."""
    off = {"entropy": 0.0, "doubly": 0.0, "expected": 0.0, "dropout": 0.0}
    model = made(attention="hard", vocab_size=9, **{**off, **options})
    with torch.no_grad():
        model.embed.weight.mul_(10)
        model.read_context.weight.mul_(4)
        encoding = encode(model, 1)
        # Places that differ in worth and in probability.
        for value in encoding.memory.values():
            value.copy_(2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(4)))
    model.train()
    return model, encoding, torch.tensor([[[1, 4, 2]]])


SCORING = ("score.weight", "from_state.weight")


def gradients(model: ShowAttendTell, loss: torch.Tensor) -> np.ndarray:
    """Of what chooses the places: the scoring vector, and the query's part of ``from_state``."""
    parameters = dict(model.named_parameters())
    first, second = torch.autograd.grad(loss, [parameters[name] for name in SCORING])
    return np.concatenate([first.flatten().numpy(), second[: len(first[0])].flatten().numpy()])


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    """d/dw of -E[log p(words | places)] a word, over all 4 x 4 pairs of places."""
    model, encoding, tokens = tiny_hard()
    inputs, targets, _ = shift(tokens)
    total = torch.zeros(())
    original = torch.multinomial
    for pair in itertools.product(range(4), repeat=2):
        turns: Iterator[int] = iter(pair)
        torch.multinomial = lambda p, n, turns=turns: torch.full((len(p), n), next(turns))
        try:
            unrolled = model._unroll(encoding, inputs, torch.ones(1, dtype=torch.bool))
        finally:
            torch.multinomial = original
        logits = model.logits(unrolled.hidden).log_softmax(-1)
        words = logits.gather(-1, targets[..., None]).sum()
        total = total + unrolled.chosen.sum().exp() * words / 2
    return gradients(model, -total)


def error(exact: np.ndarray, rows: int, **options: Any) -> float:
    """How far the loss's gradient over ``rows`` draws lies from the exact one, relative."""
    model, encoding, tokens = tiny_hard(**options)
    model.baseline.fill_(-3.0)
    torch.manual_seed(11)
    found = gradients(model, model.loss(encoding, tokens.expand(1, rows, 3), 0.0).total)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def test_reinforce_converges_to_the_exact_gradient(exact: np.ndarray) -> None:
    few, many = error(exact, 100), error(exact, 40000)
    assert many < 0.03
    assert many < few / 5  # 20 times less on average


def test_without_reinforce_the_gradient_is_another(exact: np.ndarray) -> None:
    assert error(exact, 40000, reinforce=0.0) > 0.5


def test_reinforce_adds_nothing_to_the_value() -> None:
    model, encoding, tokens = tiny_hard()
    loss = model.loss(encoding, tokens, 0.0)
    assert float(loss.total.detach()) == pytest.approx(loss.parts["words"])


def test_the_baseline_follows_the_words_and_is_saved() -> None:
    model, encoding, tokens = tiny_hard(baseline_decay=0.75)
    start = float(model.baseline)
    assert start == pytest.approx(-np.log(9))
    loss = model.loss(encoding, tokens, 0.0)
    expected = 0.75 * start - 0.25 * loss.parts["words"]
    assert loss.parts["baseline"] == pytest.approx(expected, rel=1e-5)
    assert float(model.state_dict()["baseline"]) == pytest.approx(expected, rel=1e-5)
    model.eval().loss(encoding, tokens, 0.0)
    assert float(model.baseline) == pytest.approx(expected, rel=1e-5)


def test_half_of_the_pictures_are_trained_on_expectations() -> None:
    model = made(attention="hard").train()
    torch.manual_seed(0)
    draws = model._draws(torch.zeros(4000, 1))
    assert draws is not None
    assert float(draws.float().mean()) == pytest.approx(0.5, abs=0.03)
    # A picture that is not drawn is read as soft attention reads it.
    off = made(attention="hard", expected=1.0, dropout=0.0)
    soft = made(dropout=0.0)
    tokens = torch.tensor(TOKENS)
    losses = [m.train().loss(encode(m), tokens, 0.1).parts for m in (off, soft)]
    assert losses[0]["words"] == pytest.approx(losses[1]["words"])
    assert "reinforce" not in losses[0]


def test_places_are_drawn_as_alpha_says() -> None:
    model, encoding, _ = tiny_hard()
    inputs = torch.ones(1, 20000, 1, dtype=torch.int64)
    with torch.no_grad():
        found = model._unroll(encoding, inputs, torch.ones(1, dtype=torch.bool))
    alpha, counts = found.alpha[0, 0, 0], found.chosen.exp().unique(return_counts=True)
    for p, count in zip(*counts, strict=True):
        assert float((alpha - p).abs().min()) < 1e-6
        assert float(count) / 20000 == pytest.approx(float(p), abs=0.015)


@pytest.mark.parametrize("attention", ["soft", "hard"])
def test_it_learns_twelve_pictures(attention: str) -> None:
    model = made(attention=attention, width=32, hidden=32, dropout=0.0, doubly=0.1)
    said, wanted = tiny_encoder.over_fit(model, 120)
    assert said == wanted


def test_checkpoints_keep_everything(tmp_path: Any) -> None:
    from edgecap.training.checkpoint import load_model, save_model

    options = {"vocab_size": 23, "width": 16, "attention": "hard", "annotation": 8, "hidden": 8}
    model = make_model("show-attend-tell", EncoderOptions(), options)
    model.baseline.fill_(-2.5)
    save_model(tmp_path / "c", model, "{}", {})
    loaded = load_model(tmp_path / "c")[0]
    assert loaded.options == model.options
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "loud"}, "attention is 'loud'; give one of soft, hard"),
        ({"cell": "rnn"}, "cell is 'rnn'; give one of lstm, gru"),
        ({"scores": 0}, "scores is 0; give a whole number of 1 or more"),
        ({"expected": 1.5}, "expected is 1.5; give a number from 0 to 1"),
        ({"doubly": -1.0}, "doubly is -1.0; give 0 or more"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_model("show-attend-tell", EncoderOptions(), {"vocab_size": 9, **options})
