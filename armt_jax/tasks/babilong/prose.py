"""Made-up prose for machines without books: a seeded grammar of narrative English.

Sentences have 8 to 40 words, paragraphs 2 to 8 sentences, books about 1,500 sentences. No sentence
of bAbI can come out: none of its persons is named, and nobody simply goes to one of its rooms.
"""

from __future__ import annotations

import numpy as np

# Part of the name of what is cached: books of another version are others.
VERSION = 1
NUM_BOOKS = {"train": 200, "test": 50}
_SENTENCES = 1500


def _words(text: str) -> list[str]:
    return text.split()


def _phrases(text: str) -> list[str]:
    return text.replace("\n", "").split("|")


# Every list is cut in two: even entries are for training, odd ones for test.
_PERSONS = _words(
    """Harriet Ambrose Clara Edmund Louisa Gilbert Margaret Silas Eleanor Hugh Beatrice Roland
Cecily Matthew Winifred Tobias Agnes Leopold Rosalind Barnaby Adelaide Conrad Philippa Jasper Honor
Lucian Mabel Reginald Susannah Godfrey"""
)
_TITLES = _words(
    """captain widow schoolmaster innkeeper physician carpenter clergyman governess sergeant
lawyer gardener stranger merchant ferryman magistrate painter shepherd colonel milliner poet baker
steward astronomer smuggler clockmaker botanist librarian coachman organist surveyor"""
)
_NOUNS = _words(
    """letter lantern bridge orchard clock river window coat carriage piano cellar meadow mirror
ladder chimney harbour staircase portrait candle fence wagon ribbon telescope barrel umbrella saddle
blanket ledger tower boat violin hedge trunk cottage parcel whistle compass quarry chapel fountain
basket attic anchor cradle drawer hammer locket mill needle oven pulpit quilt rope sail teapot vine
well yard almanac bell crate engine"""
)
_ADJECTIVES = _words(
    """old narrow quiet broken heavy crooked pale forgotten handsome dusty bitter distant
gentle hollow weary splendid curious frozen humble ragged silver solemn tangled uneven vast warm
faded stubborn crimson ancient brittle careless damp eager faithful gloomy hasty idle jealous keen
lonely modest noble odd"""
)
_VERBS = _words(
    """remembered examined repaired described painted feared borrowed admired sold buried measured
neglected watched mended praised inherited searched abandoned defended polished concealed counted
dreaded sketched guarded cursed hired loved weighed opened"""
)
_SPEECH = _words(
    """said replied whispered insisted admitted murmured declared complained answered thought
observed cried"""
)
_ADVERBS = _words(
    """slowly gladly silently carefully seldom eagerly calmly bravely secretly politely
anxiously often perhaps suddenly gravely warmly coldly hardly foolishly almost"""
)
_TIMES = _phrases(
    """in the first week of October|before the bells had stopped|during that long winter|
on the evening of the fair|when the snow began to fall|after the harvest was brought in|
at about the hour of supper|while the rest of the house slept|towards the end of her life|
many years before the railway came|as soon as the rain was over|in spite of the doctor's advice|
on a morning without any wind|for the third time that month|under the light of a half moon|
within sight of the cliffs"""
)
_ABSTRACT = _words(
    """patience sorrow ambition kindness pride curiosity duty fortune memory silence ignorance
courage vanity mercy regret laughter hunger prudence envy hope"""
)
_CLAUSES = _phrases(
    """which nobody had cared to mention|though the reason was never given|
and there was no more to be said about it|as everyone in the village knew|
for the roads were bad and the nights were long|but it was of little use to anybody|
which made the matter a good deal worse|so that even the children were afraid|
and so the days went by without any news|because the price of corn had fallen again|
although neither of them could say why|and the dog lay down before the fire|
as if nothing at all had happened|which was thought very strange at the time|
unless the old stories were to be believed|and the wind rose again towards dawn"""
)

_SLOTS: dict[str, list[str]] = {
    "P": _PERSONS,
    "T": _TITLES,
    "N": _NOUNS,
    "J": _ADJECTIVES,
    "V": _VERBS,
    "S": _SPEECH,
    "A": _ADVERBS,
    "W": _TIMES,
    "B": _ABSTRACT,
    "C": _CLAUSES,
}
_PATTERNS = """W , P A V the J N of the T , C .|
the T , who had A V P 's N , S that the J N was worth more than B .|
" I have never V a N so J as this , " S P , C .|
there was a J N beside the N , and P V it A W .|
P and the T V the J N together W , C .|
" what is B , " S the T A , " without a little B ? "|
it was said of the J T that B had V more men than any N , C .|
neither the N nor the J N could be found W , though P A V every N .|
of all the things that P V , the J N of the T was the one that gave most B .|
the N stood between the J N and the N , C ; P A V it .|
had the T not V the N W , P would have A V the J N instead .|
" bring me the J N , " S P to the T , " and say no more of B . "|
W the J T A V a N , two N s and a J N , C .|
P was a J sort of person , full of B and B , and A V the N of every T .|
nothing could be more J than the N that P V W , C .|
when the N was at last V , the T S that P 's J N had A been V too .|
how J the N looked W , and how A the T V it !|
the story of the J N , as the T told it , began with B and ended with B , C ."""
_PATTERN_WORDS = [line.split() for line in _phrases(_PATTERNS)]
_NO_BLANK_BEFORE = {",", ".", ";", "!", "?", "'s", "s"}


def book(split: str, index: int) -> str:
    """Book ``index`` of ``split`` (``train`` or ``test``): the same text on every machine."""
    part = list(NUM_BOOKS).index(split)
    rng = np.random.Generator(np.random.Philox(key=np.array([part, index], np.uint64)))
    # Every book has words it likes, as a writer has.
    slots = {
        name: [words[part::2][i] for i in rng.permutation(len(words[part::2]))]
        for name, words in _SLOTS.items()
    }
    patterns = [_PATTERN_WORDS[part::2][i] for i in rng.permutation(len(_PATTERN_WORDS[part::2]))]
    paragraphs = []
    left = _SENTENCES
    while left > 0:
        size = int(rng.integers(2, 9))
        draws = rng.random((size, 24))
        paragraphs.append(" ".join(_sentence(patterns, slots, list(row)) for row in draws))
        left -= size
    return "\n\n".join(paragraphs) + "\n"


def _sentence(patterns: list[list[str]], slots: dict[str, list[str]], uniform: list[float]) -> str:
    pattern = patterns[int(uniform.pop() * len(patterns))]
    text = ""
    opened = False
    for word in pattern:
        if word in slots:
            # Squared: the words at the head of a book's lists are its favourites.
            words = slots[word]
            word = words[int(uniform.pop() ** 2 * len(words))]
        glued = word in _NO_BLANK_BEFORE or text == ""
        if word == '"':
            glued = glued or opened
            opened = not opened
        elif text.endswith('"') and opened:
            glued = True
        text += word if glued else f" {word}"
    first = 1 if text[0] == '"' else 0
    return _articles(text[:first] + text[first].upper() + text[first + 1 :])


def _articles(text: str) -> str:
    """``a orchard`` becomes ``an orchard``."""
    words = text.split(" ")
    for i, word in enumerate(words[:-1]):
        if word in ("a", "A") and words[i + 1][0] in "aeiou":
            words[i] += "n"
    return " ".join(words)
