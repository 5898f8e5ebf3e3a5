"""The captioner end to end on a tiny real model, against a search written out in numpy."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_models as tiny
from PIL import Image

from edgecap.runtime.bundle import read_bundle, write_bundle
from edgecap.runtime.caption import Caption
from edgecap.runtime.captioner import Captioner
from edgecap.runtime.errors import BundleError, ImageError, OptionsError
from edgecap.runtime.manifest import ConfidenceSpec

SHAPE = (tiny.SIZE, tiny.SIZE, 3)


@pytest.fixture(scope="module")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    # Flat colours differ more for this model than noise does.
    return [np.full(SHAPE, rng.integers(0, 256, 3), np.uint8) for _ in range(11)]


def greedy(image: np.ndarray, logits_of: Any, limit: int, least: int) -> list[int]:
    tokens = [tiny.BOS]
    while len(tokens) <= limit:
        logits = logits_of(image, tokens).copy()
        logits[[tiny.PAD, tiny.BOS, tiny.UNK]] = -np.inf
        if len(tokens) <= least:
            logits[tiny.EOS] = -np.inf
        tokens.append(int(logits.argmax()))
        if tokens[-1] == tiny.EOS:
            break
    return tokens[1:]


def sequence_score(image: np.ndarray, logits_of: Any, tokens: tuple[int, ...]) -> float:
    """Mean log-probability of a whole caption, from the numpy model alone."""
    total, history = 0.0, [tiny.BOS]
    for token in tokens:
        logits = logits_of(image, history).astype(np.float64)
        total += logits[token] - np.logaddexp.reduce(logits)
        history.append(token)
    return total / len(tokens)


@pytest.mark.parametrize("recurrent", [False, True])
def test_greedy_captions_are_those_of_numpy(
    make_bundle: Callable[..., Path], pictures: list[np.ndarray], recurrent: bool
) -> None:
    captioner = Captioner(make_bundle(recurrent), threads=1)
    model = tiny.NumpyModel()
    logits_of = model.recurrent_logits if recurrent else model.attention_logits
    for image in pictures:
        caption = captioner(image, channels="RGB", beams=1)
        assert list(caption.tokens) == greedy(image, logits_of, limit=8, least=2)
        words = [tiny.WORDS[t] for t in caption.tokens if t != tiny.EOS]
        assert caption.text == " ".join(words)


@pytest.mark.parametrize("recurrent", [False, True])
def test_beam_scores_are_those_of_numpy(
    make_bundle: Callable[..., Path], pictures: list[np.ndarray], recurrent: bool
) -> None:
    captioner = Captioner(make_bundle(recurrent), threads=1)
    model = tiny.NumpyModel()
    logits_of = model.recurrent_logits if recurrent else model.attention_logits
    for image in pictures[:4]:
        caption = captioner(image, channels="RGB", beams=4, num_return_sequences=4)
        assert len(caption.alternatives) == 3
        for found in (caption, *caption.alternatives):
            expected = sequence_score(image, logits_of, found.tokens)
            assert found.score == pytest.approx(expected, abs=1e-4)
        scores = [caption.score, *(a.score for a in caption.alternatives)]
        assert scores == sorted(scores, reverse=True)
        assert caption.score >= captioner(image, channels="RGB", beams=1).score - 1e-6


def test_every_kind_of_source_gives_the_same_caption(
    captioner: Captioner, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    rgb = pictures[0]
    image = Image.fromarray(rgb)
    path = tmp_path / "picture.png"
    image.save(path)
    sources = [rgb, path, str(path), path.read_bytes(), image]
    captions = captioner(sources, channels="RGB")
    captions.append(captioner(rgb[..., ::-1], channels="BGR"))
    assert len({(c.text, c.tokens, round(c.score, 5)) for c in captions}) == 1


def test_a_list_gives_what_its_pictures_give_alone(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    together = captioner(pictures, channels="RGB")  # more than one chunk
    assert len(together) == len(pictures)
    for image, caption in zip(pictures, together, strict=True):
        alone = captioner(image, channels="RGB")
        assert alone.tokens == caption.tokens
        assert alone.score == pytest.approx(caption.score, abs=1e-5)
    assert captioner([]) == []


def test_what_a_caption_carries(captioner: Captioner, pictures: list[np.ndarray]) -> None:
    caption = captioner(pictures[0], channels="RGB")
    assert isinstance(caption, Caption)
    assert caption.alternatives == ()
    assert 0 <= caption.confidence <= 1
    t = caption.timings
    assert t.steps == len(caption.tokens) or t.steps <= 8
    assert t.total >= t.load + t.preprocess + t.encode + t.decode > 0
    assert 0 < t.step <= t.decode
    assert json.loads(json.dumps(caption.to_dict()))["text"] == caption.text


def test_confidence_follows_the_bundles_parameters(
    captioner: Captioner, make_bundle: Callable[..., Path]
) -> None:
    black, white = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 255, np.uint8)
    dark, bright = captioner([black, white], channels="RGB")
    assert not dark.sure
    assert str(dark) == f"{dark.text} (not sure)"
    assert bright.sure
    assert str(bright) == bright.text
    assert dark.confidence == pytest.approx(1 / (1 + np.exp(4)), abs=1e-5)
    plain = Captioner(make_bundle(confidence=None), threads=1)(black, channels="RGB")
    assert plain.sure
    assert plain.confidence == pytest.approx(np.exp(plain.score), abs=1e-5)


def test_the_seams_for_streams(captioner: Captioner, pictures: list[np.ndarray]) -> None:
    expected = captioner(pictures[:2], channels="RGB")
    encoded = captioner.encode(pictures[:2])
    assert encoded.features is not None
    decoded = captioner.decode(encoded)
    assert [c.tokens for c in decoded] == [c.tokens for c in expected]
    one = captioner.encode(np.zeros((7, 99, 3), np.uint8))
    assert len(captioner.decode(one, captioner.options(beams=2))) == 1
    stopped = captioner.decode(encoded, should_stop=lambda: True)
    assert all(caption.truncated for caption in stopped)
    assert all(len(c.tokens) <= 1 for c in stopped)
    assert stopped[0].timings.steps == 1


def test_options_reach_the_search(captioner: Captioner, pictures: list[np.ndarray]) -> None:
    image = pictures[0]
    assert captioner.options().beams == 3
    assert captioner.options(beams=2, length_penalty=0.5).beams == 2
    short = captioner(image, channels="RGB", max_new_tokens=1)  # under the default least of 2
    assert len(short.tokens) == 1
    long = captioner(image, channels="RGB", min_new_tokens=12, max_new_tokens=12)
    assert len(long.tokens) == 12
    no_repeats = captioner(
        image, channels="RGB", min_new_tokens=12, max_new_tokens=12, no_repeat_ngram_size=1
    )
    assert len(set(no_repeats.tokens)) == 12


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 13}, "max_new_tokens is 13; tiny has 12 positions, give 1 to 12"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"max_new_tokens": "many"}, "max_new_tokens is 'many'"),
        ({"beams": 0}, "beams is 0; give a whole number from 1 to 16"),
        ({"beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3"),
        ({"min_new_tokens": 9}, "min_new_tokens is 9; give a whole number from 0 to 8"),
        ({"early_stopping": "soon"}, "early_stopping is 'soon'"),
        ({"length_penalty": "long"}, "length_penalty is 'long'"),
    ],
)
def test_bad_options(captioner: Captioner, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        captioner(np.zeros(SHAPE, np.uint8), channels="RGB", **options)


def test_unknown_option(captioner: Captioner) -> None:
    with pytest.raises(OptionsError, match="'width'"):
        captioner.options(width=3)


def test_the_bad_picture_of_a_list_is_named(
    captioner: Captioner, pictures: list[np.ndarray]
) -> None:
    with pytest.raises(ImageError, match=r"picture 10 of 11: no\.jpg does not exist"):
        captioner([*pictures[:9], "no.jpg", pictures[0]], channels="RGB")


def test_threads_take_turns(captioner: Captioner, pictures: list[np.ndarray]) -> None:
    expected = [caption.tokens for caption in captioner(pictures, channels="RGB")]
    results: dict[int, tuple[int, ...]] = {}

    def work(index: int) -> None:
        for _ in range(5):
            results[index] = captioner(pictures[index], channels="RGB").tokens

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(4)] == expected[:4]


def test_bundles_that_cannot_be_used(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    swapped = dict(bundle.files)
    swapped["encoder.onnx"], swapped["decoder.onnx"] = (
        swapped["decoder.onnx"],
        swapped["encoder.onnx"],
    )
    write_bundle(tmp_path / "swapped.edgecap", bundle.manifest, swapped)
    with pytest.raises(BundleError, match=r"swapped\.edgecap: .* are swapped"):
        Captioner(tmp_path / "swapped.edgecap")
    odd = msgspec.structs.replace(
        bundle.manifest, confidence=ConfidenceSpec(intercept=0, weights={"mood": 1}, floor=0.5)
    )
    write_bundle(tmp_path / "odd.edgecap", odd, bundle.files)
    with pytest.raises(BundleError, match=r"odd\.edgecap: confidence weighs the feature 'mood'"):
        Captioner(tmp_path / "odd.edgecap")
    text = {**bundle.files, "tokenizer.json": b"{}"}
    write_bundle(tmp_path / "text.edgecap", bundle.manifest, text)
    with pytest.raises(BundleError, match=r"text\.edgecap: the tokenizer file cannot be read"):
        Captioner(tmp_path / "text.edgecap")
