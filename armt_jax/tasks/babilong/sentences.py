"""Cutting prose into sentences, by rules that can be read.

A sentence ends at ``.``, ``!`` or ``?`` (and quotes or brackets that close there) when blanks
follow and then something that can begin a sentence: a capital, a digit, an opening quote or
bracket. It does not end behind an abbreviation (``Mr.``) or an initial (``J.``). An empty line ends
a sentence too, so that headings stand alone. BABILong uses NLTK's Punkt, which needs a download,
and which knows abbreviations from statistics and no empty lines. Line breaks inside a sentence
stay.

The rules look at a few characters only. So sentences that follow a place in a text are the same
whether the text before it is there or not.
"""

from __future__ import annotations

import re

# Part of the name of what is cached: sentences of another version are others.
VERSION = 1

_CLOSING = "\"'”’)\\]_"
_END = re.compile(rf"[.!?]+[{_CLOSING}]*(?=\s+[\"'“‘(\[_]*[A-Z0-9À-ÖØ-Þ])|\n[ \t]*\n|\Z")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Messrs|Mme|Mlle|Dr|Prof|Rev|Hon|St|Sir|Capt|Col|Gen|Lieut|Lt|Maj|Sergt|Sgt|"
    r"Gov|Sen|Rep|Esq|Jr|Sr|Bros|Co|Ltd|Inc|No|Nos|Vol|Vols|Ch|Chap|Fig|Sec|Ed|Eds|vs|viz|cf|etc|"
    r"i\.e|e\.g|pp|Jan|Feb|Mar|Apr|Aug|Sept|Oct|Nov|Dec|Mt|Ft)|\b[A-Z])\.\Z"
)
# Characters before an end that the rule about abbreviations looks at.
_LOOK_BACK = 12


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where sentences begin and end, without the blanks between them."""
    spans = []
    start = 0
    for match in _END.finditer(text):
        stop = match.end()
        if match.group().startswith(".") and _ABBREVIATION.search(
            text, max(start, stop - _LOOK_BACK), stop
        ):
            continue
        sentence = text[start:stop]
        kept = sentence.strip()
        if kept:
            begin = start + sentence.index(kept[0])
            spans.append((begin, begin + len(kept)))
        start = stop
    return spans


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order."""
    return [text[start:stop] for start, stop in sentence_spans(text)]
