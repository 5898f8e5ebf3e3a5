"""Both implementations give what ``transformers`` ``generate`` gives, on three kinds of model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from beam_drivers import assert_same_hypotheses

from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import DecodingOptions, SpecialTokens
from edgecap.runtime.decoding.reference import _Image
from edgecap.runtime.engines.base import Encoded

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCAB, LIMIT = 48, 11
SPECIAL = SpecialTokens(bos=1, eos=2, pad=3)


@dataclass
class Recompute:
    """A step runner with no cache: it rebuilds every row's sequence from the parents alone."""

    model: Any
    rows: dict[str, Any]
    decoder_only: bool
    known: dict[Any, np.ndarray]  # logits by sequences: two searches that agree share them
    sequences: np.ndarray | None = None

    def step(
        self, tokens: np.ndarray, position: int, parents: np.ndarray, ancestry: np.ndarray
    ) -> np.ndarray:
        if self.sequences is None:
            self.sequences = tokens[:, None].copy()
        else:
            self.sequences = np.concatenate([self.sequences[parents], tokens[:, None]], axis=1)
        assert self.sequences.shape[1] == position + 1
        key = self.sequences.tobytes(), self.sequences.shape
        if key not in self.known:
            name = "input_ids" if self.decoder_only else "decoder_input_ids"
            inputs = {name: torch.from_numpy(self.sequences), **self.rows}
            with torch.no_grad():
                self.known[key] = self.model(**inputs, use_cache=False).logits[:, -1].numpy()
        return self.known[key]


class HuggingFaceEngine:
    """A transformers model behind the engine contract; the pictures stand for random inputs."""

    image_size, vocab_size, max_positions = 8, VOCAB, 64

    def __init__(self, family: str) -> None:
        torch.manual_seed(0)
        self.decoder_only = family == "gpt2"
        self.model = _MODELS[family]().eval()
        generator = torch.Generator().manual_seed(1)
        self.bias = torch.randn(8, VOCAB, generator=generator)
        self.scale, self.images, self.latest = 1.0, 1, (0, 0)
        self.known: dict[Any, np.ndarray] = {}
        self.bias[:, SPECIAL.eos] += 3.5
        self.bias[:, SPECIAL.bos] += 2.0  # BOS comes again: penalties and n-grams count the first
        self.model.register_forward_hook(self._sharpen)
        self.inputs = {
            "gpt2": {},
            "bart": {"input_ids": torch.randint(4, VOCAB, (8, 5), generator=generator)},
            "vision": {"pixel_values": torch.randn(8, 3, 8, 8, generator=generator)},
        }[family]
        with torch.no_grad():
            logits = self._prepare(2, 1).step(
                np.full(2, SPECIAL.bos), 0, np.arange(2), np.zeros((2, 1), bool)
            )
        self.scale = 2.5 / (logits - self.bias[:2].numpy()).std()
        self.latest = (0, 0)  # those logits were not scaled

    def _sharpen(self, module: Any, args: Any, out: Any) -> Any:
        """Peaked logits, different for each picture, among which EOS has a chance."""
        beams = out.logits.shape[0] // self.images
        bias = self.bias[: self.images].repeat_interleave(beams, dim=0)
        out.logits = out.logits * self.scale + bias[:, None]
        return out

    def _prepare(self, images: int, beams: int) -> Recompute:
        if self.latest != (images, beams):
            self.latest, self.known = (images, beams), {}
        self.images = images
        rows = {k: v[:images].repeat_interleave(beams, dim=0) for k, v in self.inputs.items()}
        return Recompute(self.model, rows, self.decoder_only, self.known)

    def encode(self, images: np.ndarray) -> Encoded:
        return Encoded(len(images), {}, {}, None, None)

    def begin(self, encoded: Encoded, beams: int) -> Recompute:
        return self._prepare(encoded.batch, beams)

    def theirs(self, images: int, options: DecodingOptions, use_cache: bool) -> Any:
        """What transformers makes of the same pictures and options."""
        self.images = images
        inputs = {k: v[:images] for k, v in self.inputs.items()}
        if self.decoder_only:
            inputs["input_ids"] = torch.full((images, 1), SPECIAL.bos)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        beam_only = {
            "length_penalty": options.length_penalty,
            "early_stopping": options.early_stopping,
        }
        config = transformers.GenerationConfig(
            num_beams=options.beams,
            do_sample=False,
            max_new_tokens=options.max_new_tokens,
            min_new_tokens=options.min_new_tokens,
            no_repeat_ngram_size=options.no_repeat_ngram_size,
            repetition_penalty=options.repetition_penalty,
            num_return_sequences=options.num_return_sequences,
            suppress_tokens=list(options.suppress_tokens) or None,
            bos_token_id=SPECIAL.bos,
            decoder_start_token_id=SPECIAL.bos,
            eos_token_id=SPECIAL.eos,
            pad_token_id=SPECIAL.pad,
            use_cache=use_cache,
            output_scores=True,
            output_logits=True,
            return_dict_in_generate=True,
            **(beam_only if options.beams > 1 else {}),
        )
        with torch.no_grad():
            return self.model.generate(**inputs, generation_config=config)


def _gpt2() -> Any:
    return transformers.GPT2LMHeadModel(_gpt2_config())


def _gpt2_config(**extra: Any) -> Any:
    return transformers.GPT2Config(
        vocab_size=VOCAB,
        n_positions=64,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.4,
        bos_token_id=SPECIAL.bos,
        eos_token_id=SPECIAL.eos,
        pad_token_id=SPECIAL.pad,
        **extra,
    )


def _bart() -> Any:
    return transformers.BartForConditionalGeneration(
        transformers.BartConfig(
            vocab_size=VOCAB,
            d_model=32,
            encoder_layers=1,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=64,
            init_std=0.4,
            bos_token_id=SPECIAL.bos,
            eos_token_id=SPECIAL.eos,
            pad_token_id=SPECIAL.pad,
            decoder_start_token_id=SPECIAL.bos,
            forced_eos_token_id=None,
        )
    )


def _vision() -> Any:
    encoder = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=8,
        patch_size=4,
        initializer_range=0.4,
    )
    decoder = _gpt2_config(add_cross_attention=True, is_decoder=True)
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id = SPECIAL.bos
    config.pad_token_id = SPECIAL.pad
    return transformers.VisionEncoderDecoderModel(config)


_MODELS = {"gpt2": _gpt2, "bart": _bart, "vision": _vision}


@pytest.fixture(scope="module", params=list(_MODELS))
def engine(request: pytest.FixtureRequest) -> Iterator[HuggingFaceEngine]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield HuggingFaceEngine(request.param)
    torch.set_num_threads(threads)


def _ours(engine: HuggingFaceEngine, images: int, options: DecodingOptions, which: str) -> Decoded:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECAP_BEAM", which)
        pictures = np.zeros((images, 8, 8, 3), np.uint8)
        return generate(engine, engine.encode(pictures), options, SPECIAL)


def _until_eos(sequence: Any) -> tuple[int, ...]:
    tokens = sequence[1:].tolist()  # without BOS
    end = tokens.index(SPECIAL.eos) + 1 if SPECIAL.eos in tokens else len(tokens)
    return tuple(tokens[:end])


def _greedy_score(out: Any, image: int, tokens: tuple[int, ...], penalty: float) -> float:
    steps = torch.stack([raw[image] for raw in out.logits]).log_softmax(-1)
    return sum(float(steps[t, v]) for t, v in enumerate(tokens)) / len(tokens) ** penalty


@pytest.mark.parametrize("beams", range(1, 11))
def test_equals_transformers(engine: HuggingFaceEngine, beams: int) -> None:
    rng = np.random.default_rng(beams)
    ended = total = 0
    for length_penalty, early_stopping in itertools.product(
        [0.0, 0.6, 1.0, 2.0], [False, True, "never"]
    ):
        options = DecodingOptions(
            beams=beams,
            max_new_tokens=int(rng.choice([4, LIMIT])),
            min_new_tokens=int(rng.choice([0, 3])),
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            no_repeat_ngram_size=int(rng.choice([0, 2, 3])),
            repetition_penalty=float(rng.choice([1.0, 1.3])),
            num_return_sequences=int(rng.integers(1, beams + 1)),
            suppress_tokens=tuple(map(int, rng.choice(np.arange(4, VOCAB), rng.choice([0, 3])))),
        )
        images = int(rng.choice([1, 2, 3]))
        theirs = engine.theirs(images, options, use_cache=bool(rng.choice([False, True])))
        native = _ours(engine, images, options, "native")
        reference = _ours(engine, images, options, "reference")
        assert_same_hypotheses(native.hypotheses, reference.hypotheses)
        assert native.steps == reference.steps

        flat = [h for hypotheses in native.hypotheses for h in hypotheses]
        assert [h.tokens for h in flat] == [_until_eos(s) for s in theirs.sequences], options
        if beams > 1:
            scores = theirs.sequences_scores.numpy()
            np.testing.assert_allclose([h.score for h in flat], scores, rtol=1e-4, atol=1e-4)
        elif options.repetition_penalty == 1.0:
            for image, hypothesis in enumerate(flat):
                score = _greedy_score(theirs, image, hypothesis.tokens, length_penalty)
                assert hypothesis.score == pytest.approx(score, abs=1e-4)
        for h in flat:
            norm = len(h.tokens) ** length_penalty
            assert h.score == pytest.approx(sum(h.logprobs) / norm, rel=1e-4, abs=1e-4)
        ended += sum(h.tokens[-1] == SPECIAL.eos for h in flat)
        total += len(flat)
    assert ended > total * 0.1  # EOS really occurred
    assert beams == 1 or ended < total  # and so did the length limit


@pytest.mark.parametrize("ngram", [0, 1, 2, 3])
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.8])
def test_processors_equal_transformers(ngram: int, penalty: float) -> None:
    """The processors alone, on short vocabularies where BOS and whole n-grams recur."""
    rng = np.random.default_rng(ngram)
    options = DecodingOptions(
        beams=4, max_new_tokens=9, no_repeat_ngram_size=ngram, repetition_penalty=penalty
    )
    theirs = transformers.LogitsProcessorList()
    if penalty != 1.0:
        theirs.append(transformers.RepetitionPenaltyLogitsProcessor(penalty))
    if ngram:
        theirs.append(transformers.NoRepeatNGramLogitsProcessor(ngram))
    for length in range(1, 10):
        image = _Image(options, SPECIAL, 9)
        ids = rng.integers(0, 5, (4, length))
        ids[:, 0] = SPECIAL.bos
        image.sequences = [tuple(row.tolist()) for row in ids]
        values = rng.normal(size=(4, 5)).astype(np.float32)
        want = theirs(torch.from_numpy(ids), torch.from_numpy(values.copy())).numpy()
        np.testing.assert_allclose(image._process(values, length - 1), want, rtol=1e-6)
