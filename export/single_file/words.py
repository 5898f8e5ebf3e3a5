"""The caption as a string: what ``runtime/text.py`` decodes, as ONNX nodes.

A table holds what each token adds to a sentence. Strings are joined in pairs, pairs of pairs and
so on. What a decoder replaces afterwards is done by splitting and joining again, and so is the
folding of white space.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from edgecap.export.single_file.nodes import Nodes
from edgecap.runtime.errors import BundleError
from edgecap.runtime.manifest import TokenizerSpec
from edgecap.runtime.text import Tokenizer

CHECKED = 2000  # random sentences that the pieces must join to
CUT = "\ufffd"  # stands for a token that is part of a character
BREAK = "\n"  # stands for white space that is no plain space until all is replaced


class Pieces:
    """What each token adds to a sentence, ``first`` at its start and ``rest`` inside; then
    ``replaced``, pairs of what stands there and what comes in its place.

    White space ends as plain spaces, since ONNX Runtime splits at those alone. A token that holds
    part of a character, as byte-level vocabularies have for rare scripts, is U+FFFD; so is NUL.

    Raises ``BundleError`` where a tokenizer's sentences are not made in this way.
    """

    def __init__(self, data: bytes, spec: TokenizerSpec) -> None:
        special = frozenset((spec.bos, spec.eos, spec.pad, spec.unk))
        self._tokenizer = Tokenizer(data, special, spec.vocab_size)
        self._file = spec.file
        reader, self.replaced = _reader(data)
        space = BREAK if self.replaced else " "
        self.first = [
            "" if v in special else _plain(reader.decode([v]), space)
            for v in range(spec.vocab_size)
        ]
        anchor = next((v for v, text in enumerate(self.first) if text.isalpha()), None)
        if anchor is None:
            raise BundleError(f"{spec.file} has no word of letters; a caption needs some")
        start = len(self.first[anchor])
        self.rest = [
            "" if v in special else _plain(reader.decode([anchor, v])[start:], space)
            for v in range(spec.vocab_size)
        ]
        if self.replaced:
            self.replaced.append((BREAK, " "))
        self._check()

    def most(self, text: str) -> int:
        """A bound on how often ``text`` stands in what one token adds: its first character does."""
        kinds = " " + BREAK if text == " " else text[0]
        return max(sum(map(piece.count, kinds)) for piece in (*self.first, *self.rest))

    def join(self, tokens: list[int]) -> str:
        """What the nodes of ``caption_nodes`` make of ``tokens``."""
        shown = [token for token in tokens if self.first[token] or self.rest[token]]
        text = "".join(self.first[v] if n == 0 else self.rest[v] for n, v in enumerate(shown))
        for old, new in self.replaced:
            text = new.join(text.split(old))
        return " ".join(text.split())

    def _check(self) -> None:
        rng = np.random.default_rng(0)
        whole = np.array([v for v, text in enumerate(self.rest) if CUT not in text])
        for _ in range(CHECKED):
            tokens = rng.choice(whole, rng.integers(0, 12)).tolist()
            if self.join(tokens) != self._tokenizer.decode(tokens):
                raise BundleError(
                    f"{self._file} makes sentences in a way that ONNX strings cannot: its tokens' "
                    "texts do not simply follow one another; keep the bundle for this model"
                )


def _reader(data: bytes) -> tuple[Any, list[tuple[str, str]]]:
    """The ``tokenizers`` reader without the replacements that its decoder ends with, and those."""
    from tokenizers import Tokenizer as Reader

    table = json.loads(data)
    steps = (table["decoder"] or {}).get("decoders", [])
    replaced: list[tuple[str, str]] = []
    fuse = [number for number, step in enumerate(steps) if step["type"] == "Fuse"]
    if fuse:
        for step in steps[fuse[0] + 1 :]:
            old, new = step.get("pattern", {}).get("String", ""), step.get("content", "")
            # What grows has no bound, and BREAK stands for other white space.
            if not old or any(new.count(c) > old.count(c) for c in new) or BREAK in old:
                return Reader.from_buffer(data), []
            replaced.append((old, new))
        table["decoder"] = {"type": "Sequence", "decoders": steps[: fuse[0] + 1]}
    return Reader.from_str(json.dumps(table)), replaced


def caption_nodes(
    g: Nodes, pieces: Pieces, tokens: str, count: int, length: int, name: str
) -> None:
    """Nodes for ``name``, string [N]: the sentences of ``tokens``, int64 [N, L].

    Places after a sentence's end hold a token without text, such as padding.
    """
    first, rest = pieces.first, pieces.rest
    texts = g.strings([text.encode() for text in (*rest, *first)], (2 * len(rest),))
    has = g.constant([bool(a or b) for a, b in zip(first, rest, strict=True)], np.bool_)
    shown = g("Cast", g("Gather", has, tokens), to=7)
    before = g("CumSum", shown, g.whole(1), exclusive=1)
    start = g("Add", tokens, g.whole(len(rest)))
    place = g("Where", g("Equal", before, g.whole(0)), start, tokens)
    text = _join(g, g("Gather", texts, place), count, length)
    for old, new in pieces.replaced:
        text = _resplit(g, text, old, new, count, length * pieces.most(old) + 1)
    _resplit(g, text, "", " ", count, length * pieces.most(" ") + 1, name)


def _resplit(g: Nodes, text: str, at: str, glue: str, count: int, most: int, name: str = "") -> str:
    """string [N]: split at ``at`` ("" is white space, which is trimmed, too), joined by ``glue``.

    most : no string has more parts
    """
    parts, found = g.several("StringSplit", 2, text, delimiter=at)
    blank = g.strings([b""] * (count * most), (count, most))
    bounds = [g.whole([value]) for value in (0, most, 1)]
    parts = g("Slice", g("Concat", parts, blank, axis=1), *bounds)
    number = np.arange(most)
    inner = g("Less", g.whole(number), g("Unsqueeze", found, g.whole([1])))
    inner = g("And", inner, g.constant(number > 0, np.bool_))
    between = g("Where", inner, g.strings([glue.encode()], (1,)), g.strings([b""], (1,)))
    return _join(g, g("StringConcat", between, parts), count, most, name)


def _join(g: Nodes, parts: str, count: int, length: int, name: str = "") -> str:
    """string [N, length] -> string [N]."""
    axis, two = g.whole([1]), g.whole([2])
    while length > 1:
        if length % 2:
            parts = g("Concat", parts, g.strings([b""] * count, (count, 1)), axis=1)
            length += 1
        halves = (g("Slice", parts, g.whole([k]), g.whole([length]), axis, two) for k in (0, 1))
        parts = g("StringConcat", *halves)
        length //= 2
    return g("Reshape", parts, g.whole([count]), name=name)


def _plain(text: str, space: str) -> str:
    text = text.replace("\0", CUT)  # which ends a string elsewhere
    return "".join(space if c.isspace() and c != " " else c for c in text)
