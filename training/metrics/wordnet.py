"""Which words mean the same: WordNet (Miller, 1995), and the base forms of its morphy rules.

Two homes of the data are known: the METEOR jar inside the package pycocoevalcap, whose lists are
WordNet 3.0 without senses and parts of speech, and a folder of WordNet's own files (Debian's
package wordnet-base puts one at /usr/share/wordnet).
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgecap.runtime.errors import DataError, MissingExtraError

WORDNET_FOLDER = Path("/usr/share/wordnet")
PARTS = ("noun", "verb", "adj", "adv")

# morphy's detachment rules in its order: nouns, verbs, adjectives.
DETACHMENTS = (
    ("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("men", "man"), ("ies", "y"),
    ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
    ("ing", ""),
    ("er", ""), ("est", ""), ("er", "e"), ("est", "e"),
)  # fmt: skip


@dataclass(frozen=True)
class WordNet:
    """synsets : lower-case word, "_" for blanks -> numbers of its synonym sets
    bases : irregular form -> its base forms"""

    synsets: Mapping[str, frozenset[int]]
    bases: Mapping[str, tuple[str, ...]]

    def base_forms(self, word: str) -> tuple[str, ...]:
        """Base forms of an inflected word: the listed ones, else the first rule's that is a word.

        A word that no rule shortens has none.
        """
        if word in self.bases:
            return self.bases[word]
        if word.endswith("ss") or len(word) < 3:
            return ()
        for suffix, ending in DETACHMENTS:
            if word.endswith(suffix):
                base = word.removesuffix(suffix) + ending
                if base in self.synsets:
                    return (base,)
        return ()

    def of(self, phrase: str) -> frozenset[int]:
        """Synonym sets of a word or phrase and of its base forms; empty for unknown words."""
        word = phrase.strip().lower().replace(" ", "_")
        found = self.synsets.get(word, frozenset())
        return found.union(*(self.synsets.get(base, ()) for base in self.base_forms(word)))


@cache
def load() -> WordNet:
    """The WordNet of this machine, read once.

    Raises MissingExtraError where neither pycocoevalcap nor Debian's wordnet-base is installed.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        jar = Path(folder) / "meteor" / "meteor-1.5.jar"
        if jar.is_file():
            return from_meteor_jar(jar)
    if (WORDNET_FOLDER / "index.noun").is_file():
        return from_folder(WORDNET_FOLDER)
    raise MissingExtraError(
        "WordNet's synonyms were not found; they come with the package pycocoevalcap (pip install "
        "pycocoevalcap) or with Debian's wordnet-base (apt-get install wordnet-base)"
    )


def from_meteor_jar(jar: Path) -> WordNet:
    """Read the lists inside a METEOR 1.5 jar; raises DataError where it has none."""
    try:
        with zipfile.ZipFile(jar) as archive:
            names = {Path(name).name: name for name in archive.namelist()}
            synsets, exceptions = (
                archive.read(names[f"english.{part}"]).decode("utf-8").splitlines()
                for part in ("synsets", "exceptions")
            )
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{jar} is no METEOR 1.5 jar with English synonyms: {error}") from error
    # Both lists alternate: a word, then its synset numbers or its irregular forms.
    return WordNet(
        {word: frozenset(map(int, sets.split())) for word, sets in _pairs(synsets)},
        _inverted((base, forms.split()) for base, forms in _pairs(exceptions)),
    )


def from_folder(folder: Path) -> WordNet:
    """Read WordNet's own index and exception files (wndb(5WN)); raises DataError without them."""
    synsets: dict[str, frozenset[int]] = {}
    bases: list[tuple[str, list[str]]] = []
    try:
        for number, part in enumerate(PARTS):
            for line in (folder / f"index.{part}").read_text("utf-8").splitlines():
                if line.startswith(" "):  # the licence
                    continue
                word, _, count, *rest = line.split()
                # Offsets are unique within a part of speech only.
                offsets = frozenset(int(o) + number * 10**8 for o in rest[-int(count) :])
                synsets[word] = synsets.get(word, frozenset()) | offsets
            for line in (folder / f"{part}.exc").read_text("utf-8").splitlines():
                form, *forms = line.split()
                bases.extend((base, [form]) for base in forms)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder} is no folder of WordNet files: {error}") from error
    return WordNet(synsets, _inverted(bases))


def _pairs(lines: list[str]) -> Iterator[tuple[str, str]]:
    return zip(lines[::2], lines[1::2], strict=False)


def _inverted(pairs: Iterable[tuple[str, list[str]]]) -> dict[str, tuple[str, ...]]:
    bases: dict[str, list[str]] = {}
    for base, forms in pairs:
        for form in forms:
            bases.setdefault(form, []).append(base)
    return {form: tuple(dict.fromkeys(found)) for form, found in bases.items()}
