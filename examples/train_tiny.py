"""Trains a captioner from nothing on drawn pictures, in half a minute on one core.

python examples/train_tiny.py [FOLDER]      a temporary folder if not given
"""

import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

import edgecap
from edgecap.runtime.decoding.loop import generate
from edgecap.runtime.decoding.options import DecodingOptions
from edgecap.runtime.image import load_image, resize_image
from edgecap.runtime.text import Tokenizer
from edgecap.training.checkpoint import load_model
from edgecap.training.recipe import family_recipe
from edgecap.training.run import train
from edgecap.training.torch_engine import TorchEngine
from edgecap.training.validate import SPECIAL, SUPPRESSED

COLOURS = {"red": (220, 30, 30), "green": (30, 180, 40), "blue": (40, 60, 230)}
SIZES = {"small": 12, "large": 26}
VALUES = (
    "encoder.name=patches",
    "encoder.settings={image_size: 64, patch: 16, width: 64}",
    "model.width=64",
    "model.heads=4",
    "model.hidden=128",
    "model.max_positions=8",
    "options.epochs=20",
    "options.batch=16",
    "options.warm_up=20",
    "options.decoder_rate=2e-3",
    "options.encoder_rate=2e-3",
    "options.average=0.9",
    "options.events=false",
    "min_count=1",
    "views=2",
)


def draw(folder: Path, count: int) -> None:
    """Discs of a colour and size on grey, and a table of captions."""
    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["image,caption,split"]
    for i in range(count):
        colour, size = list(COLOURS)[i % 3], list(SIZES)[i // 3 % 2]
        pixels = generator.integers(90, 140, (96, 96, 3), np.uint8)
        place = tuple(int(v) for v in generator.integers(30, 66, 2))
        cv2.circle(pixels, place, SIZES[size], COLOURS[colour][::-1], -1)
        cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels)
        split = "val" if i % 8 == 7 else "train"
        lines.append(f"images/{i}.png,a {size} {colour} ball on grey,{split}")
    (folder / "captions.csv").write_text("\n".join(lines))


def main(folder: Path) -> None:
    draw(folder / "balls", 96)
    recipe = family_recipe("image-transformer", [f"own:{folder / 'balls'}"], values=VALUES)
    best = train(recipe, folder / "run", folder / "cache", threads=1)

    model, tokenizer_json, meta = load_model(best)
    engine = TorchEngine(model)
    picture = load_image(folder / "balls" / "images" / "7.png")  # not trained on
    encoded = engine.encode(resize_image(picture, engine.image_size)[None])
    search = DecodingOptions(beams=3, max_new_tokens=8, suppress_tokens=SUPPRESSED)
    found = generate(engine, encoded, search, SPECIAL).hypotheses[0][0]
    print(f"CIDEr {meta['CIDEr']:.2f}")
    print("7.png:", Tokenizer(tokenizer_json.encode(), range(4)).decode(list(found.tokens)))


if __name__ == "__main__":
    try:
        if len(sys.argv) > 1:
            main(Path(sys.argv[1]))
        else:
            with tempfile.TemporaryDirectory() as temporary:
                main(Path(temporary))
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
