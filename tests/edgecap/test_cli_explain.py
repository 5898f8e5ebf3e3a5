"""``edgecap explain``: maps against what is known of the model, figures, and bad input."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("matplotlib")

import tiny_models

from edgecap.cli import main
from edgecap.occlusion import OcclusionOptions, occlusion_maps, token_logprobs
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.errors import OptionsError
from edgecap.runtime.text import Tokenizer
from edgecap.runtime.words import group_tokens

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(3).integers(0, 256, (8, 12, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels, (120, 80), interpolation=cv2.INTER_NEAREST))
    return path


@pytest.fixture
def explain(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``edgecap explain`` in this process -> exit code, standard output, standard error."""

    def command(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.run(["explain", *map(str, words)])
        out, err = capfd.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0), out, err

    return command


@pytest.fixture(params=[False, True], ids=["attention", "recurrent"])
def captioner(request: pytest.FixtureRequest, make_bundle: Callable[..., Path]) -> Captioner:
    return Captioner(make_bundle(request.param), threads=1)


def oracle(captioner: Captioner, image: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Log-probabilities of a caption by the numpy twin of the tiny bundles, no cache."""
    model = tiny_models.NumpyModel()
    recurrent = captioner.manifest.family == "recurrent"
    logits = model.recurrent_logits if recurrent else model.attention_logits
    given = [tiny_models.BOS, *tokens]
    found = [logits(image, given[: t + 1]) for t in range(len(tokens))]
    return np.array([x[t] - np.log(np.exp(x).sum()) for x, t in zip(found, tokens, strict=True)])


def test_teacher_forcing_through_the_engine_equals_numpy(captioner: Captioner) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    tokens = [4, 5, 10, 13, 2]
    found = token_logprobs(captioner, captioner.encode(list(images)), tokens)
    expected = [oracle(captioner, image, tokens) for image in images]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_maps_are_what_covering_by_hand_gives(captioner: Captioner) -> None:
    image = np.random.default_rng(1).integers(0, 256, (32, 32, 3), np.uint8)
    options = OcclusionOptions(side=4, cover=1.0)
    maps = occlusion_maps(captioner, image, channels="RGB", options=options)
    caption = captioner(image, channels="RGB")
    assert " ".join(word for word, _ in maps) == caption.text
    covered = image.copy()
    covered[8:16, 24:32] = np.rint(image.mean((0, 1)))
    tokens = list(caption.tokens)
    fall = oracle(captioner, image, tokens) - oracle(captioner, covered, tokens)
    for place, (_, values) in enumerate(maps):
        assert values.shape == (4, 4)
        assert values[1, 3] == pytest.approx(fall[place], abs=1e-4)


def test_an_even_picture_depends_on_no_place(captioner: Captioner) -> None:
    image = np.full((32, 32, 3), 90, np.uint8)
    for _, values in occlusion_maps(captioner, image, channels="RGB"):
        assert np.abs(values).max() < 1e-5


def test_the_square_does_not_leave_the_picture_and_covers_all_of_it() -> None:
    from edgecap.occlusion import _covered

    image = np.random.default_rng(2).integers(0, 120, (50, 50, 3), np.uint8)
    image[0, 0] = 255  # no pixel has the mean colour
    for side, cover in ((7, 1.0), (7, 0.4), (3, 3.0), (28, 2.0)):
        batches = np.concatenate(list(_covered(image, OcclusionOptions(side, cover))))
        assert len(batches) == side * side
        changed = (batches != image).any(-1)
        assert changed.any((1, 2)).all()
        if cover >= 1:
            assert changed.any(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"side": 1}, "side is 1"), ({"side": 99}, "side is 99"), ({"cover": 0}, "cover is 0")],
)
def test_occlusion_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        OcclusionOptions(**options)


def test_words_of_several_tokens() -> None:
    from tokenizers import Tokenizer as Writer
    from tokenizers.decoders import WordPiece
    from tokenizers.models import WordLevel

    vocab = ["<pad>", "<bos>", "<eos>", "a", "surf", "##board", "##s", "snow"]
    writer = Writer(WordLevel({word: i for i, word in enumerate(vocab)}, unk_token="<pad>"))
    writer.decoder = WordPiece("##")
    tokenizer = Tokenizer(writer.to_str().encode(), (0, 1, 2))
    found = group_tokens(tokenizer, [3, 4, 5, 6, 7, 3, 3, 2])
    assert found == [("a", [0]), ("surfboards", [1, 2, 3]), ("snow", [4]), ("a", [5]), ("a", [6])]
    assert group_tokens(tokenizer, [2]) == []


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".pdf", ".svg"])
def test_a_bundle_is_explained_by_occlusion(
    explain: Callable[..., Any], tiny_bundle: Path, photo: Path, suffix: str
) -> None:
    out = photo.with_name("figure" + suffix)
    code, said, err = explain(photo, "-o", out, "--model", tiny_bundle, "--side", 2)
    assert (code, err) == (0, "")
    assert said == f"{out}: {Captioner(tiny_bundle, threads=1)(photo).text}\n"
    assert sorted(path.name for path in out.parent.iterdir()) == [out.name, "photo.png"]
    if suffix in (".png", ".jpg"):
        assert cv2.imread(str(out)).shape[1] > 500
    if suffix == ".svg":
        assert out.read_text().rstrip().endswith("</svg>")


def test_the_command_needs_no_torch(tiny_bundle: Path, photo: Path) -> None:
    words = ["explain", str(photo), "-o", str(photo.with_name("f.png")), "--side", "2"]
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgecap.cli.main import run\n"
        f"run({[*words, '--model', str(tiny_bundle)]!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.jpg", "-o", "OUT/f.png"], "none.jpg does not exist; give the path"),
        (["PHOTO", "-o", "OUT/f.txt"], "is no name for a figure; let it end in .png, .jpg"),
        (["PHOTO", "-o", "OUT/no/f.png"], "cannot be written: there is no folder"),
        (["PHOTO", "-o", "OUT/f.png", "--model", "unknown"], "no model is named 'unknown'"),
        (["PHOTO", "-o", "OUT/f.png", "--side", "1"], "side is 1; give a whole number from 2"),
        (["PHOTO", "-o", "OUT/f.png", "--beams", "0"], "beams is 0; give a whole number from 1"),
        (["PHOTO", "-o", "OUT/f.png", "--checkpoint", "OUT"], "OUT is no checkpoint"),
        (["PHOTO", "-o", "OUT/f.png", "--checkpoint", "x", "--model", "y"], "give one of them"),
        (["PHOTO", "-o", "OUT/d.png"], "d.png is a folder; give the name of a file"),
    ],
)
def test_bad_input_is_one_line(
    explain: Callable[..., Any], tiny_bundle: Path, photo: Path, words: list[str], message: str
) -> None:
    (photo.parent / "d.png").mkdir()
    words = [w.replace("OUT", str(photo.parent)).replace("PHOTO", str(photo)) for w in words]
    if "--model" not in words and "--checkpoint" not in words:
        words += ["--model", str(tiny_bundle)]
    code, out, err = explain(*words)
    assert (code, out) == (2, "")
    assert err.startswith("edgecap: error: ")
    assert message.replace("OUT", str(photo.parent)) in err
    assert err.count("\n") == 1
    assert not (photo.parent / "f.png").exists()


def test_a_full_disk_leaves_the_old_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    from edgecap.training.explain import draw_maps

    def full(self: Figure, path: Path, **_: Any) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    out = tmp_path / "f.png"
    out.write_text("old")
    monkeypatch.setattr(Figure, "savefig", full)
    maps = [("dog", np.eye(3, dtype=np.float32))]
    with pytest.raises(OptionsError, match="cannot be written: No space left"):
        draw_maps(np.zeros((9, 9, 3), np.uint8), maps, out, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]
    assert out.read_text() == "old"


def test_the_map_is_drawn_over_the_place_it_speaks_of(tmp_path: Path) -> None:
    from edgecap.training.explain import draw_maps

    values = np.zeros((4, 4), np.float32)
    values[0, 3] = 1.0
    photo = np.full((200, 200, 3), 128, np.uint8)
    draw_maps(photo, [("dog", values)], tmp_path / "f.png", "", "")
    figure = cv2.imread(str(tmp_path / "f.png")).astype(int)
    light = figure.sum(-1)
    panel = np.argwhere(np.abs(figure - figure.mean(-1, keepdims=True)).max(-1) > 40)
    panel = panel[panel[:, 1] < 0.85 * figure.shape[1]]  # the scale of colours is right of it
    top, left = panel.min(0)
    bottom, right = panel.max(0)
    cells = light[top : bottom + 1, left : right + 1]
    y, x = np.unravel_index(cells.argmax(), cells.shape)
    assert y < 0.3 * (bottom - top)
    assert x > 0.7 * (right - left)


@pytest.fixture
def small_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes a checkpoint of a family with random weights and a tiny encoder -> its folder."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    from edgecap.training.checkpoint import save_model
    from edgecap.training.models import make_model
    from edgecap.training.models.encoders import ENCODERS, EncoderOptions
    from edgecap.training.vocabulary import build_word_tokenizer

    def write(family: str) -> Path:
        monkeypatch.setitem(ENCODERS, "tiny", "tiny_encoder")
        tokenizer = build_word_tokenizer(["a dog runs in the snow"], 1)
        options = {"vocab_size": tokenizer.get_vocab_size(), "width": 16, "hidden": 16}
        torch.manual_seed(1)
        model = make_model(family, EncoderOptions("tiny"), {**options, "max_positions": 6})
        torch.nn.init.normal_(model.embed.weight)
        save_model(tmp_path / "checkpoint", model, tokenizer.to_str(), {})
        return tmp_path / "checkpoint"

    return write


def test_attention_maps_are_the_models_own(small_checkpoint: Callable[[str], Path]) -> None:
    folder = small_checkpoint("show-attend-tell")
    import torch

    from edgecap.training.checkpoint import load_model
    from edgecap.training.explain import attention_maps

    model, tokenizer, _ = load_model(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    maps = attention_maps(model, tokenizer, pixels)
    vocabulary = Tokenizer(tokenizer.encode())
    tokens = [vocabulary.encode(word)[0] for word, _ in maps]
    assert tokens
    with torch.inference_mode():
        encoding = model.encode(model.frozen(torch.from_numpy(pixels[None])))
        inputs = torch.tensor([[[1, *tokens[:-1]]]])
        expected = model.decode(encoding, inputs, attention=True).attention[0, 0]
    for (_, values), weights in zip(maps, expected, strict=True):
        np.testing.assert_allclose(values, weights.numpy().reshape(2, 2), rtol=1e-4)
        assert values.sum() == pytest.approx(1, abs=1e-5)


def test_a_checkpoint_is_explained_by_attention(
    explain: Callable[..., Any],
    tmp_path: Path,
    photo: Path,
    small_checkpoint: Callable[[str], Path],
) -> None:
    folder = small_checkpoint("show-attend-tell")
    for option in ("--checkpoint", "--model"):
        out = tmp_path / "a.svg"
        code, said, err = explain(photo, "-o", out, option, folder, "--threads", 1)
        assert (code, err) == (0, "")
        assert said.startswith(f"{out}: ")
        assert "Attention of the show-attend-tell in checkpoint" in out.read_text()


def test_a_family_without_attention_is_told(
    explain: Callable[..., Any],
    tmp_path: Path,
    photo: Path,
    small_checkpoint: Callable[[str], Path],
) -> None:
    folder = small_checkpoint("show-and-tell")
    code, out, err = explain(photo, "-o", tmp_path / "a.png", "--checkpoint", folder)
    assert (code, out) == (2, "")
    assert err.startswith("edgecap: error: show-and-tell has no attention over places to show; ")
    assert err.count("\n") == 1


def test_the_default_model_depends_on_where_the_cat_is() -> None:
    data = pytest.importorskip("skimage.data")
    from edgecap.models import bundled

    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    captioner = Captioner(bundled()["default"], threads=1)
    image = np.full((300, 600, 3), 128, np.uint8)
    image[:, 300:] = cv2.resize(data.chelsea(), (300, 300))
    options = OcclusionOptions(side=4, cover=1.0)
    maps = occlusion_maps(captioner, image, channels="RGB", options=options)
    total = sum(np.abs(values) for _, values in maps)
    assert total[:, 2:].sum() > 2 * total[:, :2].sum()


def test_the_example(tmp_path: Path, photo: Path) -> None:
    from edgecap.models import bundled

    if "default" not in bundled():
        pytest.skip("this checkout has no default model")
    command = [sys.executable, "examples/explain.py", str(photo), str(tmp_path / "f.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert " nats at row " in done.stdout
    assert (tmp_path / "f.png").stat().st_size > 10000
