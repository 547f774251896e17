"""Contexts in which every segment holds facts: where looking up is learnt.

Not BABILong's own: there facts lie anywhere among the noise, most segments have none, and a small
model that starts so does not learn to look up (``BUILD_NOTES.md``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from armt_jax.tasks.babilong.noise import TokenisedBooks, draw_passage

# Of each segment some facts, each as ids.
Segments = list[list[Sequence[int]]]


def spread(
    facts: Sequence[Sequence[int]], most: int, segment_size: int, rng: np.random.Generator
) -> Segments | None:
    """``facts`` in their order, 1 to ``most`` in each segment, uniformly, but no more than fit.

    None where a fact is longer than a segment.
    """
    rest, segments = list(facts), []
    while rest:
        count = int(rng.integers(1, most, endpoint=True))
        while sum(map(len, rest[:count])) > segment_size:
            count -= 1
        if count == 0:
            return None
        segments.append(rest[:count])
        rest = rest[count:]
    return segments


def write_densely(
    books: TokenisedBooks,
    segments: Segments,
    shape: tuple[int, int],
    noise: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Context int32 and mask bool, ``[s, t]``: the last segments hold facts, padding around them.

    Args:
      books: the noise.
      segments: from ``spread``, at most ``s``.
      shape: ``s`` segments of ``t`` tokens.
      noise: it fills up to this share of what the facts leave of a segment, uniformly.
      rng: all that is random.
    """
    context, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    for row, facts in enumerate(segments, start=shape[0] - len(segments)):
        tokens = _among_noise(books, facts, shape[1], noise, rng)
        # Anywhere in the segment: what is found at a place is not looked for by its meaning.
        start = int(rng.integers(0, shape[1] - tokens.size, endpoint=True))
        context[row, start : start + tokens.size] = tokens
        mask[row, start : start + tokens.size] = True
    return context, mask


def _among_noise(
    books: TokenisedBooks,
    facts: Sequence[Sequence[int]],
    size: int,
    share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    room = int(share * (size - sum(map(len, facts))))
    count = int(rng.integers(0, room, endpoint=True))
    noise = draw_passage(books, count, rng).read(0, count)
    cuts = np.sort(rng.integers(0, noise.size, len(facts), endpoint=True))
    first, *others = np.split(noise, cuts)
    mixed = [first]
    for fact, part in zip(facts, others, strict=True):
        mixed += [np.asarray(fact), part]
    return np.concatenate(mixed)
