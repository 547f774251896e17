"""Text in which everything is said twice, so that looking back always pays."""

from __future__ import annotations

import numpy as np

from armt_jax.config.language_modelling import SHORTEST_REPEAT


def said_twice(tokens: np.ndarray, longest: int, rng: np.random.Generator) -> np.ndarray:
    """As many tokens, of pieces that stand two times in a row; the last ones may be cut short.

    A text as it is seldom rewards a look at the segment before; here every second piece does.
    Lengths differ, so that what stood so many places before is no way to tell the next token.

    Args:
      tokens: ``[n]``.
      longest: tokens of the longest piece; the shortest has ``SHORTEST_REPEAT``.
      rng: chooses each length, all as likely.
    """
    pieces, start, count = [], 0, 0
    while count < tokens.size:
        piece = tokens[start : start + int(rng.integers(SHORTEST_REPEAT, longest + 1))]
        pieces += [piece, piece]
        start, count = start + piece.size, count + 2 * piece.size
    return np.concatenate(pieces)[: tokens.size] if pieces else tokens
