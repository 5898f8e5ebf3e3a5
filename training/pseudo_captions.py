"""Sequence-level distillation: a teacher's caption of every training picture (Kim and Rush 2016).

Captions go to a JSONL file as they are made, so that an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import DataError, OptionsError
from edgecap.training.data import CaptionedImage, load_pixels
from edgecap.training.errors import TrainingError
from edgecap.training.progress import track

BATCH = 16

# uint8 RGB pictures [H, W, 3] of any size -> their captions
Writer = Callable[[Sequence[npt.NDArray[np.uint8]]], list[str]]


@dataclass(frozen=True)
class PseudoCaptionOptions:
    """teacher : a checkpoint folder, or the path of an exported bundle
    beams : width of the teacher's search
    """

    teacher: str = ""
    beams: int = 4

    def __post_init__(self) -> None:
        if not self.teacher or self.beams < 1:
            raise OptionsError(
                "pseudo_captions needs a teacher (a checkpoint folder or a bundle) and beams of 1 "
                f"or more; it has {self.teacher!r} and {self.beams}"
            )


def write_pseudo_captions(
    images: Sequence[CaptionedImage],
    options: PseudoCaptionOptions,
    path: Path,
    *,
    threads: int = 2,
    left_out: Sequence[int] = (),
    device: Any = "cpu",
) -> list[str]:
    """One caption for each of ``images``, from ``path`` as far as they are there.

    left_out : places of pictures that are not looked at; their caption is empty

    Raises DataError where ``path`` is of other pictures or another teacher.
    """
    done = _read(path, images, options)
    skipped = set(left_out)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(options)) + "\n")
        if len(done) < len(images):
            write = _writer(options, threads, device)
            starts = range(len(done), len(images), BATCH)
            with path.open("a") as file:
                for start in track(starts, "teacher's captions"):
                    chosen = range(start, min(start + BATCH, len(images)))
                    seen = [i for i in chosen if i not in skipped]
                    made = write([load_pixels(images[i]) for i in seen]) if seen else []
                    texts = dict(zip(seen, made, strict=True))
                    for i in chosen:
                        line = {"image": images[i].id, "caption": texts.get(i, "")}
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")
                        done.append(line["caption"])
                    file.flush()
    except OSError as error:
        raise TrainingError(f"{path} could not be written ({error}); make room and go on") from None
    return done


def _read(path: Path, images: Sequence[CaptionedImage], options: PseudoCaptionOptions) -> list[str]:
    """The captions that are there; a line that was cut off is taken away."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    lines = whole.splitlines()
    try:
        found = [json.loads(line) for line in lines]
        of_this = not found or found[0] == asdict(options)
        captions = [str(line["caption"]) for line in found[1:]]
        names = [line["image"] for line in found[1:]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); remove it to make it anew") from None
    if not of_this or names != [image.id for image in images[: len(names)]]:
        raise DataError(
            f"{path} holds captions of other pictures or of another teacher; remove it or name "
            "another run"
        )
    if not found:
        path.unlink()
    return captions


def _writer(options: PseudoCaptionOptions, threads: int, device: Any) -> Writer:
    folder = Path(options.teacher)
    if (folder / "model.json").is_file():
        return _checkpoint_writer(folder, options.beams, device)
    from edgecap.runtime.captioner import Captioner

    captioner = Captioner(folder, threads=threads)

    def write(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[str]:
        found = captioner(list(pictures), channels="RGB", beams=options.beams)
        return [caption.text for caption in found]

    return write


def _checkpoint_writer(folder: Path, beams: int, device: Any) -> Writer:
    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.decoding.options import DecodingOptions
    from edgecap.runtime.image import resize_image
    from edgecap.runtime.text import Tokenizer
    from edgecap.training.checkpoint import load_model
    from edgecap.training.torch_engine import TorchEngine
    from edgecap.training.validate import SPECIAL, SUPPRESSED
    from edgecap.training.vocabulary import EOS

    model, tokenizer_json, _ = load_model(folder)
    engine = TorchEngine(model.to(device))
    tokenizer = Tokenizer(tokenizer_json.encode(), special=(*SUPPRESSED, EOS))
    search = DecodingOptions(
        beams=beams, max_new_tokens=engine.max_positions, suppress_tokens=SUPPRESSED
    )

    def write(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[str]:
        pixels = np.stack([resize_image(picture, engine.image_size) for picture in pictures])
        found = generate(engine, engine.encode(pixels), search, SPECIAL).hypotheses
        return [tokenizer.decode(list(best[0].tokens)) for best in found]

    return write
