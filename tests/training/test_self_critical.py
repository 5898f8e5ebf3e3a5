"""Sampling draws what the model says; self-critical training follows the expected reward."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgecap.runtime.decoding.loop import generate  # noqa: E402
from edgecap.runtime.decoding.options import DecodingOptions  # noqa: E402
from edgecap.runtime.errors import OptionsError  # noqa: E402
from edgecap.training.models import CaptionModel, make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.objectives import Batch  # noqa: E402
from edgecap.training.sampling import sample  # noqa: E402
from edgecap.training.self_critical import (  # noqa: E402
    CollapseGuard,
    SelfCritical,
    SelfCriticalOptions,
)
from edgecap.training.torch_engine import TorchEngine  # noqa: E402
from edgecap.training.validate import SPECIAL, SUPPRESSED  # noqa: E402
from edgecap.training.vocabulary import BOS, EOS, PAD  # noqa: E402


def small(vocab: int, positions: int) -> CaptionModel:
    torch.manual_seed(0)
    options = {"vocab_size": vocab, "width": 32, "heads": 2, "hidden": 48,
               "max_positions": positions, "decoder_layers": 1, "dropout": 0.0}  # fmt: skip
    model = make_model("image-transformer", EncoderOptions(), options).eval()
    torch.nn.init.normal_(model.embed.weight, std=0.3)
    return model


def features(model: CaptionModel, batch: int) -> tuple[torch.Tensor, ...]:
    pixels = np.random.default_rng(1).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    with torch.no_grad():
        return tuple(part.clone() for part in model.frozen(torch.from_numpy(pixels)))


def test_the_likeliest_words_are_those_of_greedy_search() -> None:
    model = small(40, 7)
    seen = features(model, 3)
    with torch.no_grad():
        rows = sample(model, model.encode(seen), 1, temperature=0, suppressed=SUPPRESSED)
    engine = TorchEngine(model)
    options = DecodingOptions(beams=1, max_new_tokens=7, suppress_tokens=SUPPRESSED)
    found = generate(engine, engine.encode_frozen(seen), options, SPECIAL).hypotheses
    for row, (best, *_) in zip(rows[:, 0].tolist(), found, strict=True):
        assert [token for token in row if token not in (PAD, EOS)] == list(best.tokens)


def test_draws_have_the_models_frequencies() -> None:
    model = small(9, 2)
    seen = features(model, 1)
    with torch.no_grad():
        encoding = model.encode(seen)
        generator = torch.Generator().manual_seed(4)
        rows = sample(model, encoding.tile(400), 50, temperature=0.7, generator=generator)
        first = torch.tensor([[[BOS]]])
        logits = model.logits(model.decode(encoding, first).hidden)[0, 0, 0]
        chances = (logits / 0.7).softmax(-1).numpy()
    rows = rows.flatten(0, 1)
    counts = np.bincount(rows[:, 0].numpy(), minlength=9)
    spread = np.sqrt(chances * (1 - chances) / 20000)
    assert (np.abs(counts / 20000 - chances) < 5 * spread + 1e-9).all()
    ended = rows[rows[:, 0] == EOS]
    assert len(ended)
    assert (ended[:, 1:] == PAD).all()


def batch_of(model: CaptionModel, references: np.ndarray, images: np.ndarray) -> Batch:
    seen = tuple(part[images] for part in features(model, len(references)))
    return Batch(images, np.zeros_like(images), seen, torch.from_numpy(references[images]))


@pytest.mark.parametrize("baseline", ["others", "greedy"])
def test_the_gradient_is_that_of_the_expected_reward(baseline: str) -> None:
    """Against the sum over every caption there is: two words of a vocabulary of seven."""
    vocab, length, hot = 7, 2, 0.8
    model = small(vocab, length)
    a, b, c = 4, 5, 6
    references = np.array(
        [[[BOS, a, b], [BOS, a, EOS]], [[BOS, c, a], [BOS, b, c]], [[BOS, b, EOS], [BOS, c, b]]]
    )
    options = SelfCriticalOptions(baseline=baseline, captions=96, temperature=hot)
    objective = SelfCritical(references, options)
    images = np.zeros(4, np.int64)
    seen = features(model, 3)
    one = tuple(part[:1] for part in seen)
    weight = model.project["head"].bias

    words = [w for w in range(vocab) if w not in SUPPRESSED]
    every = [[EOS, PAD]] + [[x, y] for x, y in itertools.product(words, words) if x != EOS]
    rows = torch.tensor(every)[None]
    encoding = model.encode(one)
    logp, kept = objective._log_probabilities(model, encoding, rows)
    total = torch.zeros(len(every)).index_add(0, kept[0].nonzero()[:, 0], logp)
    assert float(total.exp().sum()) == pytest.approx(1, abs=1e-5)
    reward = torch.from_numpy(objective._reward(np.array([0]), rows)[0]).float()
    (exact,) = torch.autograd.grad(-(total.exp() * reward).sum() / length, weight)

    torch.manual_seed(7)
    drawn = []
    for _ in range(40):
        batch = Batch(images, images, tuple(part.expand(4, *part.shape[1:]) for part in one),
                      torch.from_numpy(references[images]))  # fmt: skip
        (estimate,) = torch.autograd.grad(objective(model, batch).total, weight)
        drawn.append(estimate)
    mean = torch.stack(drawn).mean(0)
    error = torch.stack(drawn).std(0) / len(drawn) ** 0.5
    assert float(exact.norm()) > 1e-3
    assert bool(((mean - exact).abs() < 5 * error + 1e-5).all())
    cosine = torch.nn.functional.cosine_similarity(mean, exact, dim=0)
    assert float(cosine) > 0.9


def test_it_raises_the_reward() -> None:
    model = small(20, 5)
    references = np.array([[[BOS, 4 + i, 8 + i, 12 + i, EOS, PAD]] * 2 for i in range(4)])
    objective = SelfCritical(references, SelfCriticalOptions(captions=6, temperature=1.0))
    batch = batch_of(model, references, np.arange(4))
    optimizer = torch.optim.Adam(model.decoder.parameters(), 3e-3)
    torch.manual_seed(1)
    rewards = []
    for _ in range(60):
        loss = objective(model, batch)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        rewards.append(loss.parts["reward"])
    assert np.mean(rewards[-10:]) > np.mean(rewards[:10]) + 0.3


def test_a_caption_that_breaks_off_earns_nothing() -> None:
    references = np.array([[[BOS, 4, 8, 12, EOS, PAD]] * 2, [[BOS, 5, 9, 13, EOS, PAD]] * 2])
    objective = SelfCritical(references, SelfCriticalOptions(captions=2), broken=[12])
    free = SelfCritical(references, SelfCriticalOptions(captions=2))
    rows = torch.tensor([[[4, 8, 12, EOS, PAD], [4, 8, EOS, PAD, PAD], [4, 8, 12, 4, 8]]])
    earned, before = (o._reward(np.array([0]), rows)[0] for o in (objective, free))
    assert before[0] > 1
    assert earned[0] == 0
    np.testing.assert_array_equal(earned[1:], before[1:])


def test_distance_to_the_start_is_nothing_at_the_start() -> None:
    import copy

    model = small(20, 5)
    references = np.array([[[BOS, 4, 8, 12, EOS, PAD]] * 2])
    options = SelfCriticalOptions(captions=4, kl=1.0, cross_entropy=0.2)
    objective = SelfCritical(references, options, start=copy.deepcopy(model))
    parts = objective(model, batch_of(model, references, np.array([0]))).parts
    assert parts["kl"] == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        model.embed.weight += 0.3 * torch.randn_like(model.embed.weight)
    parts = objective(model, batch_of(model, references, np.array([0]))).parts
    assert parts["kl"] > 1e-4
    assert parts["people"] > 0


def test_the_guard_tells_a_collapse() -> None:
    start = {"CIDEr": 0.5, "words": 10.0, "endings": 0.0}
    guard = CollapseGuard(start)
    assert guard({"CIDEr": 0.55, "words": 9.8, "endings": 0.005}) is None
    assert "CIDEr" in (guard({"CIDEr": 0.51, "words": 9.8, "endings": 0.0}) or "")
    assert "shrank" in (guard({"CIDEr": 0.56, "words": 8.0, "endings": 0.0}) or "")
    assert "function word" in (guard({"CIDEr": 0.56, "words": 10.0, "endings": 0.02}) or "")


@pytest.mark.parametrize(
    "wrong",
    [{"baseline": "none"}, {"captions": 1}, {"temperature": 0}, {"cross_entropy": 1.0}, {"kl": -1}],
)
def test_wrong_options_are_refused(wrong: dict) -> None:
    with pytest.raises(OptionsError):
        SelfCriticalOptions(**wrong)
    with pytest.raises(OptionsError, match="the model that it starts from"):
        SelfCritical(np.array([[[BOS, 4, EOS]]]), SelfCriticalOptions(kl=0.1))
