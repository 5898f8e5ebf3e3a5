"""An image encoder of a few weights: real maps and gradients in microseconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from edgecap.training.models import CaptionModel
from edgecap.training.models.encoders.base import EncoderOptions, Features, Frozen, ImageEncoder
from edgecap.training.models.recurrent import STATES
from edgecap.training.torch_engine import TorchEngine

SIZE, GRID = 16, 2


class TinyEncoder(ImageEncoder):
    """16 x 16 pictures, 2 x 2 places, two maps; all of it is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.made_with = EncoderOptions("tiny")
        self.image_size, self.places, self.features = SIZE, GRID * GRID, 10
        self.widths = {"deep": 10, "colour": 3}
        self.convolution = nn.Conv2d(3, 10, SIZE // GRID, SIZE // GRID)

    def frozen(self, pixels: torch.Tensor) -> Frozen:
        return (pixels.permute(0, 3, 1, 2).float() / 127.5 - 1,)

    def forward(self, frozen: Frozen) -> Features:
        colours = nn.functional.avg_pool2d(frozen[0], SIZE // GRID)
        deep = self.convolution(frozen[0]).relu().flatten(2).transpose(1, 2)
        maps = {"deep": deep, "colour": colours.flatten(2).transpose(1, 2)}
        return Features(maps, deep.mean(1))

    def tuned_parameters(self) -> Iterator[nn.Parameter]:
        return self.parameters()

    def load_pretrained(self, weights: str) -> None:
        raise AssertionError("the tiny encoder has no published weights")


def make(options: EncoderOptions) -> TinyEncoder:
    """What the table of encoders calls."""
    return TinyEncoder()


def pictures(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), np.uint8)


def check_steps_equal_teacher_forcing(model: CaptionModel, batch: int = 2, beams: int = 3) -> None:
    """Step by step with changing parents against teacher forcing on each row's whole past."""
    engine = TorchEngine(model)
    encoded = engine.encode(pictures(batch, model.image_size))
    assert set(encoded.carry) == {f"carry.{name}" for name in STATES[model.options.cell]}
    for name, value in encoded.memory.items():
        assert len(value) == batch, f"{name} was tiled"
    runner = engine.begin(encoded, beams)
    rows, vocab = batch * beams, model.options.vocab_size
    ancestry = np.zeros((rows, beams * model.options.max_positions), bool)
    generator = np.random.default_rng(2)
    past: list[list[int]] = [[] for _ in range(rows)]
    parents = np.arange(rows)
    pixels = torch.from_numpy(pictures(batch, model.image_size))
    for t in range(6):
        tokens = generator.integers(0, vocab, rows)
        past = [[*past[p], int(w)] for p, w in zip(parents, tokens, strict=True)]
        logits = runner.step(tokens, t, parents, ancestry)
        with torch.inference_mode():
            encoding = model.encode(model.frozen(pixels))
            full = torch.tensor(past).view(batch, beams, -1)
            expected = model.logits(model.decode(encoding, full).hidden[:, :, -1]).view(rows, -1)
        np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)
        parents = np.concatenate(
            [generator.integers(b * beams, (b + 1) * beams, beams) for b in range(batch)]
        )


def check_everything_is_reached(model: CaptionModel, tokens: torch.Tensor) -> None:
    """The gradient of the loss is not zero on any parameter."""
    model.train()
    encoding = model.encode(model.frozen(torch.from_numpy(pictures(len(tokens)))))
    model.loss(encoding, tokens, 0.1).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def over_fit(model: CaptionModel, steps: int, rate: float = 0.01) -> tuple[list[str], list[str]]:
    """Train on twelve flat pictures, each with a caption of its own -> what it says of them by beam
    search and what it should say, token ids as words."""
    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.decoding.options import DecodingOptions
    from edgecap.training.validate import SPECIAL, SUPPRESSED
    from edgecap.training.vocabulary import BOS, EOS

    # Three reds, two greens, two blues: every picture a colour of its own.
    colours = np.array([[r, g, b] for r in (0, 128, 255) for g in (0, 255) for b in (0, 255)])
    colours = colours.astype(np.uint8)
    images = np.broadcast_to(colours[:, None, None], (12, SIZE, SIZE, 3)).copy()
    captions = [[4, 5 + n % 3, 8 + n % 4, 12 + n % 2] for n in range(12)]
    tokens = torch.tensor([[[BOS, *words, EOS]] for words in captions])
    optimizer = torch.optim.Adam(model.parameters(), rate)
    frozen = model.frozen(torch.from_numpy(images))
    model.train()
    for _ in range(steps):
        loss = model.loss(model.encode(frozen), tokens, 0.0)
        optimizer.zero_grad()
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    engine = TorchEngine(model)
    options = DecodingOptions(beams=2, max_new_tokens=6, suppress_tokens=SUPPRESSED)
    found = generate(engine, engine.encode(images), options, SPECIAL).hypotheses
    said = [" ".join(str(int(t)) for t in best[0].tokens if t != EOS) for best in found]
    return said, [" ".join(map(str, words)) for words in captions]
