r"""Caption tokeniser: the words that coco-caption scores, without Java.

coco-caption pipes captions through the Stanford PTBTokenizer (``-lowerCase -preserveLines``) and
then drops a list of punctuation tokens. The rules here were written from the observed output of
that program (Penn Treebank conventions: "can't" -> "ca n't", "dog's" -> "dog 's") and are tested
against it. At each place the longest rule wins.

Quirks that are kept because published scores contain them: brackets come out as "-lrb-" and so
on and are NOT removed (the list of coco-caption has them in capitals); neither are runs such as
"!!"; an abbreviation keeps its full stop ("st."); a mixed fraction ("1 1/2") is one token with a
no-break space inside. One that is not: coco-caption runs all captions through the program at
once, so there a caption that ends in a single letter and a full stop ("a letter T.") depends on
the first word of the next caption; here every caption stands alone.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", *".?!,:-;", "--", "..."]
)

_CONTRACTED = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}

# A full stop stays with these wherever they stand, in any case.
_ABBREVIATIONS = """
al cf co ct dr ft ga jr ky lt md mo mr ms mt ph rd rt sq sr st va vs vt wm adj adm adv ala apr aug
ave bhd cie col cos cpl dak dec det drs ens esq est etc ext feb fla fri gen gov hon inc ind jan jos
jul jun kan ltd maj mar mme mon mrs neb nev nov oct pfc plc pvt rep rev sen sep seq sfc sgt spc ste
sys tel thu tue wed wis wyo alex ariz assn asst atty bldg blvd brig bros capt cmdr colo conn corp
dept elec govs insp intl invt kans mich minn mlle mont msgr natl okla penn pres prof reps sens sept
supt tenn tues univ wisc calif comdr lieut thurs assoc profs treas
"""
_NOT_ALL_CAPITALS = "mfg mtg pte pty ppte ppty ptes ptys"
_CAPITALISED_ONLY = "az la pa ark del ill ore tex mass miss wash"
_BEFORE_A_NUMBER = "ca no op pp art fig nos figs prop"
_SENTENCE_STARTS = """
a according additionally after an as at but earlier he her here however if in it last many more now
once one other our she since so some such that the their then there these they this we what when
about while yet you
"""

_CHARACTERS = {
    **{"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"},
    **dict.fromkeys("\u20ac\u00a4\u20a0", "$"),  # euro and two general currency signs
    **{"\u00a3": "#", "\u00a2": "cents"},  # pound, cent
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4"},
    **dict.fromkeys('"\u201c\u201d\u00ab\u00bb', "''"),  # double quotation marks
    **dict.fromkeys("\u2018\u2019\u201b\u2039\u203a", "'"),  # single quotation marks
    **dict.fromkeys("\u2013\u2014\u2015", "--"),  # long dashes
    "\u2026": "...",
}
_ENTITIES = {
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'", "&nbsp;": ""},
    **{"&mdash;": "--", "&ndash;": "--"},
}


def _any_case(words: str) -> str:
    return f"(?i:{'|'.join(words.split())})"


def _in_case(words: str, cases: Sequence[str]) -> str:
    return f"(?:{'|'.join(getattr(word, case)() for word in words.split() for case in cases)})"


_RAISED = r"\u00b2\u00b3\u00b9\u00bc-\u00be\u2070-\u2079\u2080-\u2089"  # small digits, fractions
_L = rf"(?:[^\W\d_{_RAISED}][\u0300-\u036f]*)"  # a letter of any alphabet with its accents
_A = rf"(?:[^\W_{_RAISED}][\u0300-\u036f]*)"  # a letter or digit
_Q = r"['\u2019`]"  # apostrophes inside a word
_C = r"['\u2019]"  # apostrophes that begin a clitic
_WORD = rf"{_L}{_A}*(?:[.!?]{_L}{_A}*)*"  # "sitting.The" is one word
_HYPHENED = rf"{_A}(?:{_A}|[.,])*(?:[-\u2010\u2011]{_A}+)+"
_END = r"(?![^\W_])"

_LETTER_RULES = [
    _WORD,
    _HYPHENED,
    rf"{_A}+(?:[-_]{_A}+)*",
    rf"{_A}(?:{_A}|[.,])*(?:-{_A}+)*-[A-Za-z](?:\.[A-Za-z])+\.",  # "non-U.S."
    # Slashes join up to three parts, each with up to two hyphens.
    rf"{_A}+(?:-{_L}+){{0,2}}(?:/{_A}+(?:-{_L}+){{0,2}}){{1,2}}",
    # Any word keeps its full stop before a comma, colon or semicolon: it must abbreviate.
    rf"(?:{_A}+(?:_{_A}+)*|{_HYPHENED}|{_WORD})\.(?=[ \u00a0]?[,;:])",
    r"[A-Za-z](?:\.[A-Za-z])+\.",  # acronyms: "U.S.A."
    # An initial keeps its full stop unless a new sentence evidently follows.
    rf"[A-Za-z]\.(?!\s+{_in_case(_SENTENCE_STARTS, ('capitalize', 'upper'))}{_END})",
    rf"{_any_case(_ABBREVIATIONS)}\.",
    rf"{_in_case(_NOT_ALL_CAPITALS, ('lower', 'capitalize'))}\.",
    rf"{_in_case(_CAPITALISED_ONLY, ('capitalize', 'upper'))}\.",
    rf"{_any_case(_BEFORE_A_NUMBER)}\.(?=[ \u00a0]?[0-9])",
    r"[A-Z]+&[A-Z]+",  # "AT&T"
    r"[Cc](?:\+\+|#)",
    r"(?:US|HK|A|C|NZ|NT|M|S)\$",
    rf"[dDlLoO]{_Q}{_A}{{2,}}",  # "O'Brien"
    rf"[nN]{_Q}{_L}{{2,}}",
    rf"[A-HJ-Z]{_Q}(?!(?i:ll|re|ve)(?![A-Za-z]))[A-Za-z]{{2,}}",
    rf"[A-Za-z]+[aeiouyAEIOUY]{_Q}[aeiouAEIOU][A-Za-z]*",  # "ma'am"
    rf"(?i:e{_Q}er|c{_Q}mon|li{_Q}l|nat{_Q}l|nor{_Q}easter|ev{_Q}ry)",
    rf"(?i:dunkin{_Q}|somethin{_Q}|ol{_Q})",
    rf"[dDlLjJyY]{_C}(?![dDmMsS](?![A-Za-z]))",  # "y' all"
    rf"[nN]{_Q}[tT]",
    r"(?:https?|ftp)://[^\s<>\"|()]*[^\s<>\"|().,;:!?'\-\]}]",
    r"[A-Za-z0-9](?:[A-Za-z0-9_.\-]*[A-Za-z0-9_])?\.?@(?:[A-Za-z0-9\-]+\.)*[A-Za-z0-9\-]+",
]
_OTHER_RULES = [
    r"\d+[- \u00a0]\d+/\d+",  # "1 1/2"
    r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
    r"[-+]?[.,:]?\d+(?:[.,:]\d+)*",
    r"\(\d{3}\)[ \u00a0]?\d{3}[- \u00a0]\d{4}",  # "(555) 123-4567"
    rf"{_C}(?:[sSmMdDnN]|ll|re|ve|LL|RE|VE)(?![A-Za-z])",
    r"\u2019[sSmMdDnN]",
    rf"{_C}[nN]{_C}",  # "slip 'n' slide"
    rf"{_C}(?i:em|till?|cause){_END}",
    rf"{_C}(?:\d\d|\d0s)(?!['\u2019\"A-Za-z0-9])",
    rf"{_C}[tT](?=(?i:is|was))",
    r"''|``",
    r"</?[A-Za-z][A-Za-z0-9:]*(?:\s[^<>]*)?/?>",
    r"#[A-Za-z]+",
    r"@[A-Za-z]\w*",
    r"[:;=]-?[()DdPp](?![A-Za-z0-9])",
    r"-_-|\^_\^|<<|>>",
    r"\.{3,}|[!?]+|-{5,}|-{2,4}|_{2,}|#{2,}|@{2,}|\*+",
    r"&(?i:amp|lt|gt|quot|apos|mdash|ndash|nbsp);",
    r"&#\d+;",
]
_LETTER_START = [re.compile(rule) for rule in _LETTER_RULES]
_OTHER_START = [re.compile(rule) for rule in _OTHER_RULES]
_DIGIT_START = _LETTER_START + _OTHER_START
_PLAIN = re.compile(r"[A-Za-z]+(?=\s|$)")
_BEFORE_NT = re.compile(rf"[A-Za-z]*?[A-MO-Za-mo-z](?=[nN]{_Q}[tT])")


def tokenize(caption: str) -> list[str]:
    """Split ``caption`` into lower-case tokens, punctuation removed.

    Equal to the PTBTokenizer of coco-caption on captions as people write them; see the module's
    own words for the exception.
    """
    tokens: list[str] = []
    place, end = 0, len(caption)
    while place < end:
        if caption[place].isspace():
            place += 1
            continue
        plain = _PLAIN.match(caption, place)
        if plain:  # nine words of ten
            stop, token = plain.end(), plain[0].lower()
        else:
            stop = _longest(caption, place)
            token = _normalise(caption[place:stop])
        place = stop
        if token and token not in PUNCTUATION:
            tokens.extend(_CONTRACTED.get(token, (token,)))
    return tokens


def _longest(text: str, place: int) -> int:
    first = text[place]
    if first.isalpha():
        negated = _BEFORE_NT.match(text, place)
        if negated:
            return negated.end()
        rules = _LETTER_START
    else:
        rules = _DIGIT_START if first.isalnum() else _OTHER_START
    ends = [found.end() for rule in rules if (found := rule.match(text, place))]
    return max(ends, default=place + 1)


def _normalise(token: str) -> str:
    if token.lower() in _ENTITIES:
        return _ENTITIES[token.lower()]
    if len(token) == 1:
        if unicodedata.category(token).startswith("C") or ord(token) > 0xFFFF:
            return ""  # control characters and emoji are dropped
        return _CHARACTERS.get(token, token).lower()
    if token.startswith("..."):
        return "..."
    if token in ("---", "----"):
        return "--"
    token = token.lower().replace(" ", "\u00a0")
    if (token[0] == "\u2019" and token[1] != "n") or token == "n\u2019t":
        token = token.replace("\u2019", "'")
    if token[0] in "(:;=":  # a telephone number or an emoticon
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    return token
