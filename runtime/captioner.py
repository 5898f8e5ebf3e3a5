"""The captioner: pictures in, ``Caption`` objects out."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any, overload

import msgspec
import numpy as np

from edgecap.runtime.bundle import Bundle, read_bundle
from edgecap.runtime.caption import Alternative, Caption, Timings
from edgecap.runtime.confidence import caption_features, check_params, confidence, is_sure
from edgecap.runtime.decoding.loop import Decoded, generate
from edgecap.runtime.decoding.options import DecodingOptions, EarlyStopping, SpecialTokens
from edgecap.runtime.decoding.search import Hypothesis
from edgecap.runtime.engines.base import Encoded, Engine
from edgecap.runtime.engines.choose import CPU, EngineChoice, choose_engine
from edgecap.runtime.errors import BundleError, ImageError, OptionsError
from edgecap.runtime.image import RGB, ImageLike, check_resampling, load_image, resize_image
from edgecap.runtime.manifest import Manifest
from edgecap.runtime.text import Tokenizer

LOG = logging.getLogger("edgecap.engines")
MAX_BATCH = 8
# A JPEG is decoded smaller while its sides stay this many times the model's: the resized pixels
# then differ by less than one level on average.
_SPARE = 4


class Captioner:
    """Captions pictures with one model. Calls from several threads take turns.

    bundle : a ``Bundle``, or the path of a ``.edgecap`` file
    threads : CPU threads for the model; by default the physical cores, at most 4
    engine : a name of ``engines.choose.ENGINES`` or None, see ``choose_engine``; an ``Engine`` that
        is there already; by default the CPU. ``engine_choice`` tells what came of it

    Raises ``BundleError`` for a bundle that cannot be used, ``OptionsError`` for bad ``threads`` or
    ``engine``, ``EngineError`` for an engine asked for that does not run here,
    ``MissingExtraError`` where a package is absent.

    >>> captioner = edgecap.load()
    >>> print(captioner("photo.jpg"))
    a dog runs through the grass
    """

    def __init__(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        threads: int | None = None,
        engine: str | Engine | None = CPU,
    ) -> None:
        if not isinstance(bundle, Bundle):
            bundle = read_bundle(bundle)
        self.path: Path = bundle.path
        self.manifest: Manifest = bundle.manifest
        special = self.manifest.tokenizer
        ids = (special.bos, special.eos, special.pad, special.unk)
        check_resampling(self.manifest.image)
        try:
            check_params(self.manifest.confidence)
            self.tokenizer = Tokenizer(bundle.files[special.file], ids, special.vocab_size)
            if engine is None or isinstance(engine, str):
                engine, choice = choose_engine(bundle, engine, threads=threads)
            else:
                choice = EngineChoice("own", "own", type(engine).__name__)
        except BundleError as error:
            raise BundleError(f"{bundle.path}: {error}") from None
        self.engine: Engine = engine
        self.engine_choice: EngineChoice = choice
        if choice.notice:
            LOG.warning(choice.notice)
        self._special = SpecialTokens(bos=special.bos, eos=special.eos, pad=special.pad)
        self._defaults = msgspec.structs.asdict(self.manifest.decoding)
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.manifest.name

    @property
    def image_size(self) -> int:
        """S: the encoder takes S x S pixels."""
        return self.engine.image_size

    def resize(self, rgb: RGB) -> RGB:
        """A picture, uint8 RGB [H, W, 3], as the encoder takes it, uint8 [S, S, 3]."""
        return resize_image(rgb, self.manifest.image)

    def prepare(self, image: ImageLike, *, channels: str | None = None) -> RGB:
        """A picture as the encoder takes it, uint8 [S, S, 3]; from any thread, without waiting.

        image, channels : as ``load_image`` takes them. Raises ``ImageError``.
        """
        return self.resize(load_image(image, channels, enough=self._enough))

    @property
    def _enough(self) -> int | None:
        # Pillow's filters are for models that expect its exact pixels: those see all of a picture.
        spec = self.manifest.image
        return _SPARE * spec.side if spec.resample == "area" else None

    @overload
    def __call__(
        self,
        image: ImageLike,
        *,
        channels: str | None = ...,
        beams: int | None = ...,
        max_new_tokens: int | None = ...,
        min_new_tokens: int | None = ...,
        length_penalty: float | None = ...,
        early_stopping: EarlyStopping | None = ...,
        no_repeat_ngram_size: int | None = ...,
        repetition_penalty: float | None = ...,
        num_return_sequences: int | None = ...,
    ) -> Caption: ...

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        channels: str | None = ...,
        beams: int | None = ...,
        max_new_tokens: int | None = ...,
        min_new_tokens: int | None = ...,
        length_penalty: float | None = ...,
        early_stopping: EarlyStopping | None = ...,
        no_repeat_ngram_size: int | None = ...,
        repetition_penalty: float | None = ...,
        num_return_sequences: int | None = ...,
    ) -> list[Caption]: ...

    def __call__(
        self,
        image: ImageLike | list[Any] | tuple[Any, ...],
        *,
        channels: str | None = None,
        beams: int | None = None,
        max_new_tokens: int | None = None,
        min_new_tokens: int | None = None,
        length_penalty: float | None = None,
        early_stopping: EarlyStopping | None = None,
        no_repeat_ngram_size: int | None = None,
        repetition_penalty: float | None = None,
        num_return_sequences: int | None = None,
    ) -> Caption | list[Caption]:
        """Caption one picture, or each of a list.

        image : path, bytes, numpy array, PIL image, or a list of any of them; see ``load_image``
        channels : colour order of arrays, "RGB", "BGR", "RGBA" or "BGRA"
        other options : as in ``DecodingOptions``; the model's own default where None

        A list is run in chunks of 8; the timings of its captions are those of their chunk, so that
        ``total`` is how long that caption took to come. ``num_return_sequences`` above 1 fills
        ``alternatives`` with the runners-up.

        Raises ``ImageError`` and ``OptionsError``.
        """
        options = self.options(
            beams=beams,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            no_repeat_ngram_size=no_repeat_ngram_size,
            repetition_penalty=repetition_penalty,
            num_return_sequences=num_return_sequences,
        )
        if not isinstance(image, list | tuple):
            return self._run([image], channels, options, None)[0]
        captions = []
        for start in range(0, len(image), MAX_BATCH):
            chunk = image[start : start + MAX_BATCH]
            captions += self._run(chunk, channels, options, (start, len(image)))
        return captions

    def options(self, **given: Any) -> DecodingOptions:
        """The model's decoding defaults with those ``given`` in their place; None is not given."""
        given = {name: value for name, value in given.items() if value is not None}
        merged = {**self._defaults, **given}
        limit = self.engine.max_positions
        most = merged["max_new_tokens"]
        if isinstance(most, int) and most > limit:
            raise OptionsError(
                f"max_new_tokens is {most}; {self.name} has {limit} positions, give 1 to {limit}"
            )
        if "min_new_tokens" not in given and isinstance(most, int):
            merged["min_new_tokens"] = min(merged["min_new_tokens"], max(most, 0))
        try:
            return DecodingOptions(**merged)
        except TypeError as error:
            raise OptionsError(str(error).split("() ")[-1]) from None

    def encode(self, rgb: RGB | Sequence[RGB]) -> Encoded:
        """Resize and encode pictures, uint8 RGB [H, W, 3] each, of any size."""
        pictures = [rgb] if isinstance(rgb, np.ndarray) and rgb.ndim == 3 else list(rgb)
        return self.engine.encode(np.stack([self.resize(picture) for picture in pictures]))

    def decode(
        self,
        encoded: Encoded,
        options: DecodingOptions | None = None,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Caption]:
        """Captions of encoded pictures, in their order; their timings hold the decoding alone.

        options : from ``options``; the model's defaults if None
        should_stop : asked after each step; True ends the search with the best found so far
        """
        options = options if options is not None else self.options()
        decoded = self.search(encoded, options, should_stop=should_stop)
        return [
            self._caption(found, encoded, index, decoded, options.num_return_sequences)
            for index, found in enumerate(decoded.hypotheses)
        ]

    def search(
        self,
        encoded: Encoded,
        options: DecodingOptions,
        *,
        should_stop: Callable[[], bool] | None = None,
    ) -> Decoded:
        """The search behind ``decode``: hypotheses, runner-up included, and what they cost."""
        # The runner-up is free, and its distance from the best tells how sure the search is.
        wanted = max(options.num_return_sequences, min(2, options.beams))
        search = replace(options, num_return_sequences=wanted)
        with self._lock:
            return generate(self.engine, encoded, search, self._special, should_stop=should_stop)

    def _run(
        self,
        images: Sequence[Any],
        channels: str | None,
        options: DecodingOptions,
        where: tuple[int, int] | None,
    ) -> list[Caption]:
        begin = perf_counter()
        pictures = []
        enough = self._enough
        for index, source in enumerate(images):
            try:
                pictures.append(load_image(source, channels, enough=enough))
            except ImageError as error:
                if where is None:
                    raise
                place = f"picture {where[0] + index + 1} of {where[1]}"
                raise ImageError(f"{place}: {error}") from None
        loaded = perf_counter()
        batch = np.stack([self.resize(picture) for picture in pictures])
        resized = perf_counter()
        encoded = self.engine.encode(batch)
        ready = perf_counter()
        captions = self.decode(encoded, options)
        total = (perf_counter() - begin) * 1e3
        return [
            replace(
                caption,
                timings=replace(
                    caption.timings,
                    load=(loaded - begin) * 1e3,
                    preprocess=(resized - loaded) * 1e3,
                    encode=(ready - resized) * 1e3,
                    total=total,
                ),
            )
            for caption in captions
        ]

    def _caption(
        self,
        found: Sequence[Hypothesis],
        encoded: Encoded,
        index: int,
        decoded: Decoded,
        returned: int,
    ) -> Caption:
        novelty = None if encoded.novelty is None else float(encoded.novelty[index])
        params = self.manifest.confidence
        value = confidence(caption_features(found, novelty), params)
        best = found[0]
        return Caption(
            text=self.tokenizer.decode(best.tokens),
            tokens=tuple(best.tokens),
            score=best.score,
            confidence=value,
            sure=is_sure(value, params),
            timings=Timings(
                decode=decoded.decode_ms,
                step=decoded.step_ms,
                steps=decoded.steps,
                total=decoded.decode_ms,
            ),
            alternatives=tuple(
                Alternative(self.tokenizer.decode(other.tokens), tuple(other.tokens), other.score)
                for other in found[1:returned]
                if other.tokens
            ),
            truncated=decoded.truncated,
        )
