"""The default model's family: its step must say what teacher forcing says."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgecap.runtime.errors import OptionsError  # noqa: E402
from edgecap.training.models import CaptionModel, make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.torch_engine import TorchEngine  # noqa: E402


@pytest.fixture(scope="module")
def model() -> CaptionModel:
    torch.manual_seed(0)
    options = {"vocab_size": 97, "width": 48, "heads": 4, "hidden": 64, "max_positions": 7}
    made = make_model("image-transformer", EncoderOptions(), options).eval()
    torch.nn.init.normal_(made.embed.weight)
    return made


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 224, 224, 3), np.uint8)


def test_steps_equal_teacher_forcing_along_changing_beams(model: CaptionModel) -> None:
    batch, beams, length = 2, 3, 6
    engine = TorchEngine(model)
    encoded = engine.encode(pictures(batch))
    runner = engine.begin(encoded, beams)
    rows, slots = batch * beams, beams * model.options.max_positions
    generator = np.random.default_rng(2)
    past = [[] for _ in range(rows)]
    ancestry = np.zeros((rows, slots), bool)
    with torch.inference_mode():
        encoding = model.encode(model.frozen(torch.from_numpy(pictures(batch))))
    parents = np.arange(rows)
    for t in range(length):
        tokens = generator.integers(0, 97, rows)
        past = [[*past[p], int(w)] for p, w in zip(parents, tokens, strict=True)]
        logits = runner.step(tokens, t, parents, ancestry)
        with torch.inference_mode():
            full = torch.tensor(past).view(batch, beams, -1)
            expected = model.logits(model.decode(encoding, full).hidden[:, :, -1]).view(rows, -1)
        np.testing.assert_allclose(logits, expected.numpy(), atol=2e-4)
        parents = np.concatenate([generator.integers(b * beams, (b + 1) * beams, beams)
                                  for b in range(batch)])  # fmt: skip
        ancestry = ancestry[parents]
        ancestry[np.arange(rows), t * beams + parents % beams] = True


def test_memory_of_a_picture_does_not_depend_on_its_batch(model: CaptionModel) -> None:
    engine = TorchEngine(model)
    both, one = engine.encode(pictures(2)), engine.encode(pictures(2)[1:])
    for name, value in one.memory.items():
        np.testing.assert_allclose(value[0], both.memory[name][1], atol=1e-4)


def test_dropout_keeps_the_mean_and_is_off_in_evaluation(model: CaptionModel) -> None:
    from edgecap.training.models.layers import FastDropout

    layer = FastDropout(0.25)
    x = torch.ones(400, 500)
    torch.manual_seed(0)
    out = layer.train()(x)
    assert abs(float(out.mean()) - 1) < 0.02
    assert abs(float((out == 0).float().mean()) - 0.25) < 0.02
    assert torch.equal(layer.eval()(x), x)


def test_a_width_that_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(OptionsError, match="multiple of the heads"):
        make_model("image-transformer", EncoderOptions(), {"vocab_size": 9, "width": 50})
