"""Where a model looks for each word: its attention, and the figure of such maps."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecap.runtime.errors import DataError, OptionsError
from edgecap.runtime.image import RGB, resize_image
from edgecap.runtime.text import Tokenizer
from edgecap.runtime.words import group_tokens

if TYPE_CHECKING:
    from edgecap.training.models import CaptionModel

Maps = Sequence[tuple[str, npt.NDArray[np.float32]]]
FORMATS = (".png", ".jpg", ".pdf", ".svg")
COLUMNS = 5
PANEL = 2.4  # width of a panel, inches
SHOWN = 640  # longest side of the photograph in a panel, in pixels


def attention_maps(
    model: CaptionModel, tokenizer_json: str, pixels: RGB, *, beams: int = 3
) -> list[tuple[str, npt.NDArray[np.float32]]]:
    """Caption a picture by beam search and tell where the model looked for each word.

    pixels : uint8 RGB [H, W, 3], any size

    Returns the words of the caption, each with float32 [side, side]: the shares of the places,
    which sum to 1; the mean over layers and heads, and over the tokens of a word.

    Raises DataError for a family without attention over places.
    """
    import torch

    from edgecap.runtime.decoding.loop import generate
    from edgecap.runtime.decoding.options import DecodingOptions
    from edgecap.training.torch_engine import TorchEngine
    from edgecap.training.validate import SPECIAL, SUPPRESSED
    from edgecap.training.vocabulary import BOS, EOS, PAD, UNK

    engine = TorchEngine(model)
    images = resize_image(pixels, model.image_size)[None]
    options = DecodingOptions(
        beams=beams, max_new_tokens=engine.max_positions, suppress_tokens=SUPPRESSED
    )
    encoded = engine.encode(images)
    tokens = list(generate(engine, encoded, options, SPECIAL).hypotheses[0][0].tokens)
    with torch.inference_mode():
        encoding = model.encode(model.frozen(torch.from_numpy(images).to(engine.device)))
        inputs = torch.tensor([[[BOS, *tokens[:-1]]]], device=engine.device)
        weights = model.decode(encoding, inputs, attention=True).attention
    if weights is None:
        raise DataError(
            f"{model.family} has no attention over places to show; explain a bundle of it, which "
            "covers parts of the picture instead"
        )
    places = weights.shape[-1]
    side = math.isqrt(places)
    if side * side != places:
        raise DataError(f"{model.family} looks at {places} places, which are no square grid")
    shares = weights[0, 0].float().cpu().numpy().reshape(-1, side, side)
    tokenizer = Tokenizer(tokenizer_json.encode(), (BOS, EOS, PAD, UNK))
    return [(word, shares[group].mean(0)) for word, group in group_tokens(tokenizer, tokens)]


def check_output(path: str | os.PathLike[str]) -> Path:
    """The path of a figure; OptionsError where none can be written, before any work is done."""
    out = Path(path)
    if out.suffix.lower() not in FORMATS:
        raise OptionsError(f"{out} is no name for a figure; let it end in {', '.join(FORMATS)}")
    if out.is_dir():
        raise OptionsError(f"{out} is a folder; give the name of a file")
    if not out.parent.is_dir():
        raise OptionsError(f"{out} cannot be written: there is no folder {out.parent}; make it")
    if not os.access(out.parent, os.W_OK):
        raise OptionsError(f"{out} cannot be written: {out.parent} is read-only for you")
    return out


def draw_maps(photo: RGB, maps: Maps, out: str | os.PathLike[str], title: str, unit: str) -> None:
    """Write a figure: the photograph, and it again under the map of each word.

    photo : uint8 RGB [H, W, 3]
    maps : words with [side, side], drawn over the whole photograph. Maps with values below 0 are
        drawn around 0, red above and blue below; others from 0 up
    title, unit : what the maps are, above the figure and beside the scale of colours

    All panels have one scale. The file is written to a temporary name beside ``out`` and renamed.
    Raises OptionsError where ``out`` cannot be written or there is no word.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    out = check_output(out)
    if not maps:
        raise OptionsError("the caption has no words, so there is nothing to draw")
    photo = _shrink(photo)
    height, width = photo.shape[:2]
    columns = min(COLUMNS, len(maps) + 1)
    rows = math.ceil((len(maps) + 1) / columns)
    tall = PANEL * min(max(height / width, 0.3), 3.0)
    # A quarter inch a row for its words, and a strip for the title and the sentence.
    figure = Figure(figsize=(PANEL * columns + 0.8, (tall + 0.25) * rows + 0.9))
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw={"wspace": 0.06})
    signed = min(float(values.min()) for _, values in maps) < 0
    # One loud word would leave the others blank, so the loudest quarter is off the scale.
    top = float(np.quantile([np.abs(values).max() for _, values in maps], 0.75)) or 1.0
    colours = matplotlib.colormaps["RdBu_r" if signed else "inferno"]
    norm = Normalize(-top if signed else 0.0, top)
    grey = photo.mean(-1)
    for index, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if index == 0:
            axis.imshow(photo)
            axis.set_title("photograph", fontsize=10, loc="left")
        elif index <= len(maps):
            word, values = maps[index - 1]
            axis.imshow(grey, cmap="gray", vmin=0, vmax=255)
            axis.imshow(
                values,
                cmap=colours,
                norm=norm,
                alpha=0.6,
                interpolation="bicubic",
                extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            )
            axis.set_title(word, fontsize=11, fontweight="bold", parse_math=False)
    sentence = " ".join(word for word, _ in maps)
    figure.suptitle(f"{title}\n{sentence}", fontsize=11, parse_math=False)
    bar = figure.colorbar(
        ScalarMappable(norm, colours),
        ax=axes,
        fraction=0.03,
        pad=0.015,
        extend="both" if signed else "max",
    )
    bar.set_label(unit, fontsize=9)
    part = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        figure.savefig(part, dpi=110, bbox_inches="tight", pad_inches=0.15)
        os.replace(part, out)
    except OSError as error:
        raise OptionsError(f"{out} cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def _shrink(photo: RGB) -> RGB:
    """At most SHOWN pixels along the longest side."""
    import cv2

    height, width = photo.shape[:2]
    scale = SHOWN / max(height, width)
    if scale >= 1:
        return photo
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
