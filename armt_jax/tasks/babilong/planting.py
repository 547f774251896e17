"""Noise with words of facts planted in it: near to a fact, and none.

What a trained gate still opens for names a person and a place within a sentence ("When John wanted
to use it about the garden" in a novel of Hardy's is a fact to it: John is in the garden). Books say
such things once in millions of tokens, so neither random noise nor the likest of many shows them to
a training often enough. Here the words are planted, at places that the books do not decide.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from armt_jax.tasks.babilong.likeness import FactLikeness

# Words of the book between a fact's two heaviest: with fewer it could be one. Of the fact's others
# at most a half is there, on average: with more, mining finds whole facts with a few words in them,
# which no book has.
_LEAST_APART, _MOST_APART = 3, 10
_MOST_OTHERS = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Planter:
    """Plants words of facts in some segments of noise.

    Attributes:
      likeness: has the facts, and what their words weigh.
      share: of segments, in which words are planted.
    """

    likeness: FactLikeness
    share: float

    def __call__(
        self, segments: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids ``[n, t]`` with words planted in some rows, and which these are: bool ``[n]``."""
        result = segments.copy()
        for index in np.flatnonzero(rng.random(len(segments)) < self.share):
            result[index] = self.plant(segments[index], rng)
        return result, (result != segments).any(axis=1)

    def plant(self, segment: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Ids ``[t]`` of a segment with words of a random fact between its own.

        The fact's two heaviest stand there in their order, 3 to 10 words of the segment between
        them; each of the others, in its order, with a probability from 0 to 1/2 that is drawn for
        each segment. The segment's own tokens make room for them at one of its ends; where there
        are too few, or a fact is one token, it stays as it is.
        """
        facts, weights = self.likeness.facts, self.likeness.weights
        fact = facts[int(rng.integers(len(facts)))]
        first, last = np.sort(np.argsort(-weights[fact], kind="stable")[:2])[[0, -1]]
        borders = np.flatnonzero(self.likeness.begins_word[segment])
        most = min(_MOST_APART, borders.size - 1)
        if first == last or most < _LEAST_APART:
            return segment
        apart = int(rng.integers(_LEAST_APART, most, endpoint=True))
        start = int(rng.integers(borders.size - apart))
        words = np.arange(fact.size)
        kept = (
            (rng.random(fact.size) < rng.uniform(0, _MOST_OTHERS))
            | (words == first)
            | (words == last)
        )
        places = np.sort(rng.integers(start, start + apart, fact.size, endpoint=True))
        places[: first + 1], places[last:] = start, start + apart
        longer = np.insert(segment, borders[places[kept]], fact[kept])
        surplus = longer.size - segment.size
        if surplus <= segment.size - borders[start + apart]:
            return longer[:-surplus]
        return longer[surplus:] if surplus <= borders[start] else segment
