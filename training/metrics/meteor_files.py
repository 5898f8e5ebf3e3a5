"""The word lists of METEOR 1.5, read where the package pycocoevalcap keeps them; Java is not run.

Its wheel holds ``meteor-1.5.jar``, which is a zip file with the function words, the abbreviations
and the WordNet synonyms, and ``data/paraphrase-en.gz``, the paraphrase table. Loading takes 1.5
seconds of one core and 90 MB of memory; it happens once per process.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecap.runtime.errors import DataError, MissingExtraError
from edgecap.training.metrics import wordnet

# By name: type checkers see the source tree, where the built module does not lie.
_native: Any = importlib.import_module("edgecap._native")

INSTALL = "pip install 'edgecap[metrics]' (pycocoevalcap and snowballstemmer; no Java)"

_CHUNK = 1 << 22  # bytes
_NUMERIC_ONLY = "#NUMERIC_ONLY#"


@dataclass(frozen=True)
class MeteorFiles:
    """function_words : lower case
    abbreviations : word -> whether it is one only before a number
    wordnet : synonym sets, WordNet 3.0
    paraphrases : _native.ParaphraseTable
    stem : the Snowball stemmer for English
    """

    function_words: frozenset[str]
    abbreviations: dict[str, bool]
    wordnet: wordnet.WordNet
    paraphrases: Any
    stem: Callable[[str], str]


def find() -> Path:
    """The folder with the files. Raises MissingExtraError where there is none."""
    spec = importlib.util.find_spec("pycocoevalcap")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place) / "meteor"
        if (folder / "meteor-1.5.jar").is_file() and (folder / "data/paraphrase-en.gz").is_file():
            return folder
    raise MissingExtraError(
        "METEOR needs its paraphrase table, WordNet synonyms and word lists, which the base "
        f"install leaves out: {INSTALL}"
    )


@functools.cache
def load() -> MeteorFiles:
    """Everything METEOR knows of English. Raises MissingExtraError where something is missing."""
    folder = find()
    stem = _stemmer()
    try:
        with zipfile.ZipFile(folder / "meteor-1.5.jar") as jar:
            function_words = frozenset(_lines(jar, "function/english.words"))
            abbreviations: dict[str, bool] = {}
            for line in _lines(jar, "nonbreaking/english.prefixes"):
                words = line.split()
                if words and not words[0].startswith("#"):
                    abbreviations[words[0]] = words[1:2] == [_NUMERIC_ONLY]
        paraphrases = _read_paraphrases(folder / "data/paraphrase-en.gz")
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, ValueError) as error:
        raise DataError(
            f"the METEOR files in {str(folder)!r} are damaged ({error}); install them anew: "
            "pip install --force-reinstall --no-deps pycocoevalcap"
        ) from None
    return MeteorFiles(function_words, abbreviations, wordnet.load(), paraphrases, stem)


def _stemmer() -> Callable[[str], str]:
    try:
        snowball = importlib.import_module("snowballstemmer")
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"METEOR needs the package 'snowballstemmer', which the base install leaves out: "
            f"{INSTALL}"
        ) from None
    # Version 3 changed the rules of the English stemmer: "organized" gave "organ" before.
    stemmer = snowball.stemmer("english")
    if stemmer.stemWord("organized") != "organ":
        raise MissingExtraError(
            "METEOR needs the English stemmer as it was before version 3 of snowballstemmer: "
            "pip install 'snowballstemmer>=2.2,<3'"
        )
    stem: Callable[[str], str] = stemmer.stemWord
    return stem


def _read_paraphrases(path: Path) -> Any:
    table = _native.ParaphraseTable()
    unzip = zlib.decompressobj(wbits=31)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            table.feed(unzip.decompress(chunk))
    table.feed(unzip.flush())
    table.finish()
    if not unzip.eof:
        raise OSError(f"{path.name} ends too early")
    return table


def _lines(jar: zipfile.ZipFile, name: str) -> list[str]:
    with jar.open(name) as file:
        return io.TextIOWrapper(file, encoding="utf-8").read().splitlines()
