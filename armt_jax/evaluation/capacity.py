"""How many pairs a memory holds, estimated from exact match (arXiv 2407.04841, Appendix B)."""

from __future__ import annotations

import math
from typing import NamedTuple, SupportsIndex

from armt_jax.config import ConfigError
from armt_jax.evaluation.intervals import CONFIDENCE, as_count, wilson_interval

DIGITS = 16


class Capacity(NamedTuple):
    """Estimated number of stored pairs ``k`` and its interval, all in pairs, in [0, n]."""

    pairs: float
    low: float
    high: float


def num_values(value_size: int) -> int:
    """Number ``v`` of values that have ``value_size`` digits of 0..15."""
    if value_size < 1:
        raise ConfigError(f"value_size = {value_size!r}: must be at least 1")
    return DIGITS**value_size


def estimate_pairs(
    exact_match: float, num_pairs: int, possible_values: int, *, clip: bool = True
) -> float:
    """Number of stored pairs: ``k = n (v alpha - 1) / (v - 1)`` (Appendix B).

    The memory is taken to hold k of the n pairs and to guess uniformly among the v values for
    the rest, so that ``alpha = k/n + (1 - k/n) / v``. It is meant for Remember, where the n keys
    are distinct; with repeated keys (Rewrite) n counts updates, not things to be remembered.

    Args:
      exact_match: ``alpha``, in [0, 1].
      num_pairs: ``n``, at least 1.
      possible_values: ``v``, at least 2.
      clip: an exact match below chance (``alpha < 1/v``, which sampling noise gives half of the
        time to a memory that holds nothing) makes the formula negative, down to -n / (v - 1);
        with ``clip`` that reads as 0. Above, k never exceeds n. The clipped estimate is biased
        upwards near 0: average unclipped ones.

    Returns:
      ``k``, in pairs; a real number, not rounded.

    Raises:
      ConfigError: an argument outside its range.
    """
    if not (math.isfinite(exact_match) and 0.0 <= exact_match <= 1.0):
        raise ConfigError(f"exact_match = {exact_match!r}: must be between 0 and 1")
    if num_pairs < 1:
        raise ConfigError(f"num_pairs = {num_pairs!r}: must be at least 1")
    if possible_values < 2:
        raise ConfigError(
            f"possible_values = {possible_values!r}: must be at least 2, a single value is no test"
        )
    pairs = num_pairs * (possible_values * exact_match - 1) / (possible_values - 1)
    return max(0.0, pairs) if clip else pairs


def estimate_capacity(
    correct: SupportsIndex,
    samples: SupportsIndex,
    num_pairs: int,
    possible_values: int,
    confidence: float = CONFIDENCE,
) -> Capacity:
    """Stored pairs from ``correct`` of ``samples`` answers, with an interval.

    k grows with alpha, so the ends of alpha's Wilson interval, put through the same formula, are
    an interval of k with the same coverage. All three numbers are clipped at 0.

    Raises:
      ConfigError: impossible counts, or an argument outside its range.
    """
    alpha = wilson_interval(correct, samples, confidence)
    rate = as_count("correct", correct) / as_count("samples", samples)
    points = (rate, alpha.low, alpha.high)
    return Capacity(*(estimate_pairs(point, num_pairs, possible_values) for point in points))
