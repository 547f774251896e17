"""Noise around a training context: segments that are read without a gradient."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from armt_jax.recurrence.segmenting import overlapping
from armt_jax.tasks.babilong.likeness import FactLikeness, likest_segment
from armt_jax.tasks.babilong.noise import TokenisedBooks, draw_passage
from armt_jax.tasks.babilong.planting import Planter


class HardNoise(Protocol):
    """Segments that a model has trouble with: ``mining.MinedNoise``."""

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The ids of one."""
        ...


def surround(
    books: TokenisedBooks,
    context: np.ndarray,
    mask: np.ndarray,
    rng: np.random.Generator,
    before: tuple[int, int],
    behind: tuple[int, int],
    likeness: FactLikeness | None = None,
    choices: int = 1,
    planter: Planter | None = None,
    mined: HardNoise | None = None,
    overlap: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A context between segments of noise, next to which they stand; padding is outermost.

    Args:
      books: the noise.
      context: int32 ``[s, t]``.
      mask: bool ``[s, t]``.
      rng: all that is random. Nothing is drawn where there is no room.
      before: the least and the most segments in front, uniformly; there is room for the most.
      behind: the same of what follows.
      likeness, choices: each segment behind is the likest to facts of 1 to ``choices`` random ones.
      planter: plants words of facts in some of those.
      mined: if there are any, every other segment behind is one of these instead.
      overlap: tokens that a segment repeats of the one before, where both are of one passage as it
        is in the book: not chosen, planted or mined.

    Returns:
      Context int32 and mask bool, both ``[before + s + behind, t]``.
    """
    contexts, masks = [context], [mask]
    if before[1]:
        noise, full = _noise(books, before, context.shape[1], overlap, rng)
        unused = int(np.sum(~full[:, 0]))
        contexts.insert(0, np.roll(noise, unused, axis=0))
        masks.insert(0, np.roll(full, unused, axis=0))
    if behind[1]:
        noise, full = _noise(
            books, behind, context.shape[1], overlap, rng, likeness, choices, planter, mined
        )
        contexts.append(noise)
        masks.append(full)
    return np.concatenate(contexts), np.concatenate(masks)


def _noise(
    books: TokenisedBooks,
    bounds: tuple[int, int],
    size: int,
    overlap: int,
    rng: np.random.Generator,
    likeness: FactLikeness | None = None,
    choices: int = 1,
    planter: Planter | None = None,
    mined: HardNoise | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Segments of one passage, or each chosen by itself, then padding."""
    count = int(rng.integers(bounds[0], bounds[1], endpoint=True))
    noise, full = np.zeros((bounds[1], size), np.int32), np.zeros((bounds[1], size), bool)
    tokens = count * (size - overlap) + overlap
    if likeness is not None and choices > 1:
        for index in range(count):
            noise[index] = likest_segment(books, likeness, size, choices, rng)
    else:
        passage = draw_passage(books, tokens, rng).read(0, tokens)
        noise[:count] = overlapping(passage, size, overlap)
    if planter is not None:
        noise[:count], _ = planter(noise[:count], rng)
    if mined is not None:
        for index in np.flatnonzero(rng.integers(2, size=count)):
            noise[index] = mined.draw(rng)
    full[:count] = True
    return noise, full
