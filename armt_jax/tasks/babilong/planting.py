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

# Words of the book between the two words of a fact that always stand there: with fewer it could be
# one. Of its others at most a half is planted: with all of them, what mining finds is whole facts
# with a word or two in them, which no book has (BUILD_NOTES, "Training on BABILong").
_LEAST_APART, _MOST_APART = 3, 10


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

        Two stand there in any case, 3 to 10 words of the segment between them: the heaviest of
        those that are asked about, or where that is one or none, of the others. Up to a half of
        the rest is there, too, all in the fact's order. The segment's own tokens make room at one
        of its ends; where there are too few, or a fact is one token, it stays as it is.
        """
        facts, weights = self.likeness.facts, self.likeness.weights
        fact = facts[int(rng.integers(len(facts)))]
        asked_first = np.lexsort((-weights[fact], ~self.likeness.asked[fact]))
        first, last = np.sort(asked_first[:2])[[0, -1]]
        borders = np.flatnonzero(self.likeness.begins_word[segment])
        most = min(_MOST_APART, borders.size - 1)
        if first == last or most < _LEAST_APART:
            return segment
        apart = int(rng.integers(_LEAST_APART, most, endpoint=True))
        start = int(rng.integers(borders.size - apart))
        others = rng.permutation(asked_first[2:])
        others = others[: int(rng.integers(others.size // 2, endpoint=True))]
        kept = np.sort(np.concatenate([[first, last], others]))
        places = np.sort(rng.integers(start, start + apart, fact.size, endpoint=True))
        places[: first + 1], places[last:] = start, start + apart
        longer = np.insert(segment, borders[places[kept]], fact[kept])
        surplus = longer.size - segment.size
        if surplus <= segment.size - borders[start + apart]:
            return longer[:-surplus]
        return longer[surplus:] if surplus <= borders[start] else segment
