"""Which noise looks like facts: what a memory must learn to leave out is rare in books.

A book says "Daniel" or "garden" once in thousands of sentences, and those are the ones that open a
write gate. A segment that is the likest to facts of many random ones shows a training such text in
every batch.
"""

from __future__ import annotations

import numpy as np

from armt_jax.tasks.babilong.noise import TokenisedBooks, draw_passage
from armt_jax.tasks.babilong.questions import QuestionSource
from armt_jax.tasks.babilong.sample import sample_rng

_STORIES = 1_000
_NOISE_TOKENS = 300_000
# A word this near to a border may belong to a fact of which the segment has only a part.
_AT_BORDER = 4
# Of no training example, whose streams are named by seeds below 2**63.
_STREAM = 2**63 + 11


class FactLikeness:
    """How many words of facts a text has, each counted once, by how rare it is elsewhere.

    A token of facts weighs ``log(p / q)``: its share of their tokens, over that of noise (with one
    more of each there, so that none is 0); those that noise has more often weigh nothing.

    Attributes:
      weights: float64 ``[vocabulary]``.
      facts: the ids of each fact of the stories that were looked at, int64 ``[t]``.
      begins_word: bool ``[vocabulary]``: tokens that begin with white space.
      asked: bool ``[vocabulary]``: tokens of questions and answers, but for those that every one
        has: of qa1 people and places, not how they got there.
    """

    def __init__(self, questions: QuestionSource, books: TokenisedBooks) -> None:
        tokenizer = books.tokenizer
        rng = sample_rng(_STREAM, 0)
        noise = draw_passage(books, _NOISE_TOKENS, rng).read(0, _NOISE_TOKENS)
        size, looked_at = tokenizer.vocab_size, min(questions.num_questions, _STORIES)
        asked, self.facts = np.zeros(size, int), list[np.ndarray]()
        for question in map(questions.question, range(looked_at)):
            self.facts += [np.asarray(ids) for ids in tokenizer.facts(question.facts)]
            # With a leading blank, as facts have their words.
            both = tokenizer.sentences([question.question.strip(), question.answer])
            asked[np.unique(np.concatenate(both))] += 1
        self.asked = (asked > 0) & (asked < looked_at)
        self.begins_word = np.array([tokenizer.decode([id_])[:1].isspace() for id_ in range(size)])
        of_facts = np.bincount(np.concatenate(self.facts), minlength=size)
        of_noise = np.bincount(noise, minlength=size) + 1.0
        ratio = (of_facts / of_facts.sum()) / (of_noise / of_noise.sum())
        self.weights = np.log(np.maximum(ratio, 1.0))

    def scores(self, segments: np.ndarray) -> np.ndarray:
        """Of segments of ids ``[n, t]``: float64 ``[n]``."""
        ordered = np.sort(segments, axis=1)
        first = np.ones(ordered.shape, bool)
        first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        return np.sum(self.weights[ordered] * first, axis=1)


def likest_segment(
    books: TokenisedBooks,
    likeness: FactLikeness,
    size: int,
    most: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Ids ``[size]``: of 1 to ``most`` segments in a row, the one that is the likest to facts.

    How many there are to choose from is drawn uniformly, so that usual noise is among it as well.
    Every other one is moved until the word of it that weighs most is among its first or last: a
    segment that begins with " garden" may be the end of a fact that a border cut in two.
    """
    count = int(rng.integers(1, most, endpoint=True))
    tokens = (count + 2) * size  # room to move at both ends
    passage = draw_passage(books, tokens, rng).read(0, tokens)
    scores = likeness.scores(passage.reshape(count + 2, size)[1:-1])
    start = (1 + int(np.argmax(scores))) * size
    if rng.integers(2):
        word = start + int(np.argmax(likeness.weights[passage[start : start + size]]))
        ahead = int(rng.integers(min(_AT_BORDER, size)))
        start = word - (ahead if rng.integers(2) else size - 1 - ahead)
    return passage[start : start + size]
