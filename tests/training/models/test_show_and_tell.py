"""Show and Tell: cells against torch's own, steps against teacher forcing, and it learns."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tiny_encoder  # noqa: E402
from tiny_encoder import TinyEncoder, pictures  # noqa: E402

from edgecap.runtime.errors import DataError  # noqa: E402
from edgecap.training.models import make_model  # noqa: E402
from edgecap.training.models.encoders import EncoderOptions  # noqa: E402
from edgecap.training.models.recurrent import Recurrent  # noqa: E402
from edgecap.training.models.show_and_tell import ShowAndTell, ShowAndTellOptions  # noqa: E402


def made(**options: object) -> ShowAndTell:
    torch.manual_seed(0)
    defaults = {"vocab_size": 23, "width": 16, "hidden": 16, "max_positions": 7}
    return ShowAndTell(ShowAndTellOptions(**{**defaults, **options}), TinyEncoder()).eval()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_steps_of_a_cell_equal_torch(cell: str) -> None:
    torch.manual_seed(1)
    ours = Recurrent(cell, 5, 8)
    x = torch.randn(3, 6, 5)
    states = [ours.begin(x[:, 0])]
    for t in range(1, 6):
        states.append(ours.step(x[:, t], states[-1]))
    theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](5, 8, batch_first=True)
    theirs.load_state_dict(ours.layer.state_dict())
    hidden, last = theirs(x)
    torch.testing.assert_close(torch.stack([s["h"] for s in states], 1), hidden)
    last = dict(zip(("h", "c"), last, strict=True)) if cell == "lstm" else {"h": last}
    for name, value in states[-1].items():
        torch.testing.assert_close(value, last[name][0])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("tied", [True, False])
def test_steps_equal_teacher_forcing_along_changing_beams(cell: str, tied: bool) -> None:
    hidden = 16 if tied else 24
    tiny_encoder.check_steps_equal_teacher_forcing(made(cell=cell, tied=tied, hidden=hidden))


def test_the_picture_is_the_first_input_and_is_read_once() -> None:
    """One torch LSTM over [picture, words] gives the same h as encode and decode do."""
    model = made()
    tokens = torch.tensor([[[1, 7, 9]], [[1, 5, 22]]])
    with torch.no_grad():
        frozen = model.frozen(torch.from_numpy(pictures(2)))
        picture = model.picture_norm(model.project(model.backbone(frozen).pooled))
        inputs = torch.cat([picture[:, None], model.embed(tokens[:, 0])], 1)
        expected = model.decoder.layer(inputs)[0][:, 1:]
        encoding = model.encode(frozen)
        found = model.decode(encoding, tokens)
    assert encoding.memory == {}
    assert found.attention is None
    torch.testing.assert_close(found.hidden[:, 0], expected)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("tied", [True, False])
def test_the_gradient_reaches_everything(cell: str, tied: bool) -> None:
    tokens = torch.tensor([[[1, 4, 5, 2, 0], [1, 9, 2, 0, 0]]] * 3)
    tiny_encoder.check_everything_is_reached(made(cell=cell, tied=tied, dropout=0.0), tokens)


def test_tied_and_own_output_matrices() -> None:
    tied, own = made(), made(tied=False)
    assert tied.output is None
    count = [sum(p.numel() for p in model.parameters()) for model in (tied, own)]
    assert count[1] - count[0] == 23 * 16 + 23
    x = torch.randn(2, 16)
    np.testing.assert_allclose(tied.logits(x).detach(), x @ tied.embed.weight.detach().T, rtol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_it_learns_twelve_pictures(cell: str) -> None:
    model = made(cell=cell, width=64, hidden=64, dropout=0.0)
    said, wanted = tiny_encoder.over_fit(model, 180, rate=0.02)
    assert said == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "rnn"}, "cell is 'rnn'; give one of lstm, gru"),
        ({"width": 32}, "width is 32 and hidden 512; a tied output matrix needs them equal"),
        ({"hidden": 0}, "hidden is 0; give a whole number of 1 or more"),
        ({"dropout": 2}, "dropout is 2; give a number from 0 to 1"),
        ({"heads": 2}, "show-and-tell has no option 'heads'; it has vocab_size, cell"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as caught:
        make_model("show-and-tell", EncoderOptions(), {"vocab_size": 9, **options})
    assert message in str(caught.value)
