"""Confidence intervals: of one proportion, and of a mean over training seeds.

They answer different questions. ``wilson_interval`` says how well one model's exact match is
known from the contexts it was asked; ``mean_interval`` says how well the mean over trainings is
known from the few seeds that were run. The second cannot be had from the first.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Sequence
from typing import NamedTuple, SupportsIndex

import numpy as np
from scipy import special

from armt_jax.config import ConfigError

CONFIDENCE = 0.95
METHODS = ("t", "bootstrap")


class Interval(NamedTuple):
    """A closed interval, in the unit of the quantity it covers."""

    low: float
    high: float


class MeanInterval(NamedTuple):
    """A mean over ``count`` runs and the interval of that mean."""

    mean: float
    low: float
    high: float
    count: int


def as_count(name: str, value: SupportsIndex) -> int:
    """``value`` (int, or an integer scalar of NumPy or JAX) as an int of 0 or more."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} = {value!r}: must be an integer") from None
    if number < 0:
        raise ConfigError(f"{name} = {number}: must be 0 or more")
    return number


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence = {confidence!r}: must be between 0 and 1, such as 0.95")


def wilson_interval(
    correct: SupportsIndex, total: SupportsIndex, confidence: float = CONFIDENCE
) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927; Newcombe 1998, method 3).

    ``(p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)``, with ``p = correct / total``,
    ``n = total`` and z the normal quantile. It stays inside [0, 1] and keeps its coverage at
    0 and at ``total`` right answers, where the textbook ``p +- z sqrt(p(1-p)/n)`` has width 0.

    Args:
      correct: number of right answers.
      total: number of questions, at least 1; the answers are taken as independent.
      confidence: probability of covering the true proportion.

    Returns:
      The interval, as fractions in [0, 1].

    Raises:
      ConfigError: counts that are not integers, or are impossible; confidence outside (0, 1).
    """
    correct, total = as_count("correct", correct), as_count("total", total)
    _check_confidence(confidence)
    if total == 0:
        raise ConfigError("total = 0: an interval needs at least one question")
    if correct > total:
        raise ConfigError(f"correct = {correct}: must be at most total = {total}")
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    p = correct / total
    scale = 1 + z * z / total
    center = (p + z * z / (2 * total)) / scale
    half = z * math.sqrt(p * (1 - p) / total + (z / (2 * total)) ** 2) / scale
    # At the ends the formula is exactly 0 or 1; rounding would leave 1e-17 or 1 - 1e-16.
    low = 0.0 if correct == 0 else max(0.0, center - half)
    high = 1.0 if correct == total else min(1.0, center + half)
    return Interval(low, high)


def mean_interval(
    values: Sequence[float],
    *,
    method: str = "t",
    confidence: float = CONFIDENCE,
    bounds: tuple[float, float] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> MeanInterval:
    """Mean of one number per seed, and a confidence interval of that mean.

    Args:
      values: one finite number per independent run, at least two.
      method: ``t``: Student's ``mean +- t_{n-1} s / sqrt(n)``, right for normal values and, with
        2 or 3 seeds, honestly wide. ``bootstrap``: the percentile bootstrap of the mean, which
        assumes no distribution but never leaves the range of the values: with fewer than about
        10 seeds it is too narrow.
      confidence: probability of covering the true mean.
      bounds: the values the quantity can take, such as (0, 1) for exact match: the interval is
        cut to them, which costs no coverage.
      resamples: number of bootstrap resamples.
      seed: of the bootstrap; the same values and seed give the same interval.

    Raises:
      ConfigError: fewer than two values, a value that is not finite or outside ``bounds``, an
        unknown method, confidence outside (0, 1), no resamples.
    """
    _check_confidence(confidence)
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}: must be one of {', '.join(METHODS)}")
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or data.size < 2:
        raise ConfigError(
            f"values of shape {data.shape}: an interval over seeds needs a list of two or more"
        )
    low, high = (-math.inf, math.inf) if bounds is None else bounds
    for index, value in enumerate(data):
        if not (math.isfinite(value) and low <= value <= high):
            accepted = "finite" if bounds is None else f"between {low} and {high}"
            raise ConfigError(f"values[{index}] = {value}: must be {accepted}")
    if method == "t":
        interval = _student(data, confidence)
    else:
        interval = _bootstrap(data, confidence, resamples, seed)
    mean = float(data.mean())
    return MeanInterval(mean, max(low, interval.low), min(high, interval.high), data.size)


def _student(data: np.ndarray, confidence: float) -> Interval:
    quantile = float(special.stdtrit(data.size - 1, 0.5 + confidence / 2))
    half = quantile * float(data.std(ddof=1)) / math.sqrt(data.size)
    return Interval(float(data.mean()) - half, float(data.mean()) + half)


def _bootstrap(data: np.ndarray, confidence: float, resamples: int, seed: int) -> Interval:
    if resamples < 1:
        raise ConfigError(f"resamples = {resamples}: must be at least 1")
    drawn = np.random.default_rng(seed).integers(data.size, size=(resamples, data.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(data[drawn].mean(axis=1), [tail, 1 - tail])
    return Interval(float(low), float(high))
