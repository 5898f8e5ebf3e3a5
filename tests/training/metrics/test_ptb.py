from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecap.training.metrics.ptb import PUNCTUATION, tokenize

# Each line was seen to come out of coco-caption's tokeniser, and is checked against it below.
KNOWN = {
    "A black dog runs .": "a black dog runs",
    "He can't, won't and isn't.": "he ca n't wo n't and is n't",
    "We cannot see; they're gonna go": "we can not see they 're gon na go",
    "the dogs' bowl and the dog's ball": "the dogs bowl and the dog 's ball",
    "a t-shirt, a black-and-white one": "a t-shirt a black-and-white one",
    "a bird's-eye-view": "a bird 's eye-view",
    "Jordan St. and Mr. Smith": "jordan st. and mr. smith",
    "Dale Jr. posters in Washington D.C.": "dale jr. posters in washington d.c.",
    "the U.S. at 11:43 p.m. today": "the u.s. at 11:43 p.m. today",
    "No. 5 and no.": "no. 5 and no",
    "sitting.The lady eats": "sitting.the lady eats",
    "a letter P. It is big": "a letter p it is big",
    "reads 5:50 or 32.30 or 1,000": "reads 5:50 or 32.30 or 1,000",
    "$5.00, 10% and #7": "$ 5.00 10 % and # 7",
    "a 4-wheeler 4x4 on 3rd": "a 4-wheeler 4x4 on 3rd",
    "his/her bathtub/shower": "his/her bathtub/shower",
    "a suitcase/": "a suitcase /",
    "(almost fish eye) [x] {y}": "-lrb- almost fish eye -rrb- -lsb- x -rsb- -lcb- y -rcb-",
    "wait... what!! really?": "wait what !! really",
    'a "quoted" word, `this\' too': "a quoted word this too",
    "\u201csmart\u201d it\u2019s don\u2019t": "smart it 's do n't",
    "o'clock and O'Brien d'Arnaud": "o'clock and o'brien d'arnaud",
    "slip 'n' slide, rock'n'roll": "slip 'n' slide rock 'n' roll",
    "'tis the '90s y'all": "'t is the '90s y' all",
    "at&t or AT&T & co": "at & t or at&t & co",
    "Let us C++": "let us c++",
    "a kite in <unk> area": "a kite in <unk> area",
    "www.foo.com statefarm.com a@b.org": "www.foo.com statefarm.com a@b.org",
    "caf\u00e9 na\u00efve": "caf\u00e9 na\u00efve",
    "3\u00bd cups at 30\u00b0": "3 1/2 cups at 30 \u00b0",
    "a smile :)": "a smile :-rrb-",
    "": "",
    " . , ": "",
}


@pytest.mark.parametrize(("caption", "tokens"), KNOWN.items())
def test_known_captions(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens.split()


def test_known_captions_are_what_coco_caption_says(java_tokenize) -> None:
    found = java_tokenize(list(KNOWN))
    assert [" ".join(tokens) for tokens in found] == list(KNOWN.values())


@pytest.mark.parametrize("name", ["flickr8k", "coco_captions", "coco_captions_more", "oracle"])
def test_every_real_caption_equals_coco_caption(name: str, human, java_tokenize) -> None:
    captions = [text for texts in human[name].values() for text in texts]
    theirs = java_tokenize(captions)
    differing = [
        (caption, tokenize(caption), wanted)
        for caption, wanted in zip(captions, theirs, strict=True)
        if tokenize(caption) != wanted
    ]
    assert differing == []


def test_noisy_captions_nearly_always_equal_coco_caption(human, java_tokenize) -> None:
    """Random marks, cases and clitics put at random places of 10,000 real captions."""
    rng = random.Random(7)
    marks = [*".,;:!?'\"-()/&#$%*+=[]_", "...", "'s", "n't", " - ", " St.", " 3:30pm ", " $5 "]
    marks += ["\u2019", "\u201c", "\u2014", "\u00e9", " 1st ", " e.g. ", " o'clock ", " and/or "]
    captions = [text for name in human for texts in human[name].values() for text in texts]
    noisy = []
    for caption in rng.sample(captions, 10_000):
        text = caption
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(marks) + text[at:]
        noisy.append(text)
    theirs = java_tokenize(noisy)
    equal = sum(tokenize(a) == b for a, b in zip(noisy, theirs, strict=True))
    assert equal >= 9_900


@given(st.text())
def test_any_text_gives_clean_tokens(text: str) -> None:
    for token in tokenize(text):
        assert token
        assert token not in PUNCTUATION
        assert not any(c.isspace() and c != "\u00a0" for c in token) or token.startswith("<")


@given(st.lists(st.from_regex(r"[a-z]{2,9}", fullmatch=True)))
def test_plain_words_are_kept(words: list[str]) -> None:
    contracted = {"cannot", "gimme", "gonna", "gotta", "lemme", "wanna"}
    words = [word for word in words if word not in contracted]
    assert tokenize(" ".join(words)) == words
