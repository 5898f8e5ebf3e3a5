"""Which tokens each word of a sentence is made of."""

from __future__ import annotations

from collections.abc import Sequence

from edgecap.runtime.text import Tokenizer


def group_tokens(tokenizer: Tokenizer, tokens: Sequence[int]) -> list[tuple[str, list[int]]]:
    """Words in their order, each with the places in ``tokens`` it is made of.

    Tokens without text, as the end token, belong to no word.
    """
    groups: list[tuple[str, list[int]]] = []
    for place in range(len(tokens)):
        words = tokenizer.decode(tokens[: place + 1]).split()
        if len(words) > len(groups):
            groups.append((words[-1], [place]))
        elif words and words[-1] != groups[-1][0]:
            groups[-1] = (words[-1], [*groups[-1][1], place])
    return groups
