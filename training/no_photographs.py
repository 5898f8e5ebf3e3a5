"""Pictures without anything to describe, for the novelty head and the confidence fit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


def no_photographs(count: int, size: int, seed: int) -> list[Pixels]:
    """Pictures without anything to describe: uint8 [size, size, 3], made from ``seed``."""
    generator = np.random.default_rng(seed)
    makers = (_flat, _noise, _smooth_noise, _text, _gradient, _stripes, _window, _diagram)
    return [makers[i % len(makers)](generator, size) for i in range(count)]


def _flat(generator: np.random.Generator, size: int) -> Pixels:
    level = generator.choice([0, 0, 255, int(generator.integers(0, 256))])
    colour = generator.integers(0, 256, 3) if generator.random() < 0.4 else np.full(3, level)
    noise = generator.normal(0, generator.choice([0, 2, 6]), (size, size, 3))
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def _noise(generator: np.random.Generator, size: int) -> Pixels:
    if generator.random() < 0.5:
        return generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
    grey = generator.normal(128, generator.uniform(20, 90), (size, size, 1))
    return np.clip(grey.repeat(3, 2), 0, 255).astype(np.uint8)


def _smooth_noise(generator: np.random.Generator, size: int) -> Pixels:
    import cv2

    cells = int(generator.integers(3, 40))
    coarse = generator.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def _text(generator: np.random.Generator, size: int) -> Pixels:
    import cv2

    dark = generator.random() < 0.4
    page = np.full((size, size, 3), 20 if dark else 250, np.uint8)
    ink = (230, 230, 230) if dark else (20, 20, 20)
    scale = float(generator.uniform(0.25, 0.6))
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz   .,;(){}=0123456789"))
    for y in range(int(10 + 12 * scale), size, int(8 + 24 * scale)):
        if generator.random() < 0.12:
            continue
        line = "".join(generator.choice(letters, int(generator.integers(5, 60))))
        start = int(generator.integers(4, 30))
        cv2.putText(page, line, (start, y), cv2.FONT_HERSHEY_SIMPLEX, scale, ink, 1, cv2.LINE_AA)
    return page


def _gradient(generator: np.random.Generator, size: int) -> Pixels:
    ends = generator.integers(0, 256, (2, 3)).astype(np.float64)
    angle = generator.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:size, 0:size] / size
    t = np.clip(0.5 + (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle), 0, 1)[..., None]
    return np.asarray(ends[0] * (1 - t) + ends[1] * t, np.float64).astype(np.uint8)


def _stripes(generator: np.random.Generator, size: int) -> Pixels:
    width = int(generator.integers(2, 40))
    y, x = np.mgrid[0:size, 0:size] // width
    on = (x + y) % 2 if generator.random() < 0.5 else x % 2
    colours = generator.integers(0, 256, (2, 3), dtype=np.uint8)
    return np.asarray(colours[on], np.uint8)


def _window(generator: np.random.Generator, size: int) -> Pixels:
    """A desktop window: title bar, side panel, lines of text."""
    page = _text(generator, size)
    page[: size // 12] = generator.integers(40, 220, 3)
    page[:, : size // 5] = generator.integers(180, 250, 3)
    return page


def _diagram(generator: np.random.Generator, size: int) -> Pixels:
    """Boxes, circles and lines on a plain ground."""
    import cv2

    page = np.full((size, size, 3), generator.choice([255, 245, 30]), np.uint8)
    for _ in range(int(generator.integers(3, 14))):
        colour = tuple(int(c) for c in generator.integers(0, 256, 3))
        a, b = ((int(x), int(y)) for x, y in generator.integers(0, size, (2, 2)))
        width = int(generator.choice([-1, 1, 2, 4]))
        kind = generator.integers(0, 3)
        if kind == 0:
            cv2.rectangle(page, a, b, colour, width)
        elif kind == 1:
            cv2.circle(page, a, int(generator.integers(2, 3 + size // 4)), colour, width)
        else:
            cv2.line(page, a, b, colour, max(1, width), cv2.LINE_AA)
    return page
