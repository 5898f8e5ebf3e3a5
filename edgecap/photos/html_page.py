"""A page of thumbnails with alternative texts: one file, nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from edgecap.photos.alt_text import Described
from edgecap.photos.errors import LibraryError
from edgecap.photos.files import WholeFile
from edgecap.runtime.errors import EdgeCapError, MissingExtraError
from edgecap.runtime.image import load_image
from edgecap.runtime.streams.sentences import sentence

if TYPE_CHECKING:
    from edgecap.photos.query import Answer

TEMPLATE = Path(__file__).with_name("page.html.j2")
SIDE = 320  # pixels on a thumbnail's longer side


class HtmlPage:
    """Writes a list of figures, each with its alternative text, file name and confidence.

    path : the page; links lead from its folder to the photographs
    language : of the texts (BCP 47)
    """

    def __init__(self, path: Path, *, title: str = "Photographs", language: str = "en") -> None:
        self._macros = _macros()
        self.written = self.kept = 0
        self._folder = Path(os.path.realpath(path.parent))
        self._file = WholeFile(path)
        self._write(self._macros.head(title, language))

    def add(self, described: Described) -> None:
        """Add a figure."""
        caption = described.caption
        self.figure(
            described.path, described.relative, described.alt, caption.confidence, caption.sure
        )

    def figure(self, path: Path, name: str, alt: str, confidence: float, sure: bool) -> None:
        """Add a figure. Raises ``ImageError`` for a picture that cannot be read."""
        thumbnail, width, height = _thumbnail(path)
        row = {
            "thumbnail": thumbnail,
            "width": width,
            "height": height,
            "alt": alt,
            "name": name,
            "link": quote(os.path.relpath(os.path.realpath(path), self._folder)),
            "confidence": f"{confidence:.0%}",
            "sure": sure,
        }
        self._write(self._macros.item(row))
        self.written += 1

    def _write(self, text: str) -> None:
        self._file.write(str(text).encode())

    def close(self, whole: bool) -> None:
        """Put the page in its place, or give it up."""
        if whole:
            self._write(self._macros.foot(self.written))
        self._file.close(whole)


def write_hits(path: Path, answer: Answer) -> list[str]:
    """A page of photographs that were found; returns a line for each that cannot be read."""
    problems = []
    page = HtmlPage(path, title=f"Photographs: {' '.join(answer.words)}")
    whole = False
    try:
        for hit in answer.hits:
            alt = sentence(hit.text, sure=hit.sure)
            try:
                page.figure(Path(hit.path), hit.path, alt, hit.confidence, hit.sure)
            except LibraryError:
                raise
            except EdgeCapError as error:
                problems.append(str(error))
        whole = True
    finally:
        page.close(whole)
    return problems


def _thumbnail(path: Path) -> tuple[str, int, int]:
    """A JPEG in base64, its width and its height."""
    import cv2

    rgb = load_image(path, enough=SIDE)
    scale = min(1.0, SIDE / max(rgb.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (rgb.shape[1], rgb.shape[0]))
    if scale < 1.0:
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 80])
    return base64.b64encode(data.tobytes()).decode(), width, height


def _macros() -> Any:
    try:
        import jinja2
    except ImportError:
        raise MissingExtraError(
            "pages (html) need the package 'jinja2': pip install 'edgecap[photos]'"
        ) from None
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).module
