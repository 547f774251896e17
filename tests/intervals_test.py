"""Intervals against published and hand-computed numbers, and against their coverage."""

import math

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.intervals import mean_interval, wilson_interval


# Newcombe (1998), "Two-sided confidence intervals for the single proportion", Table I, method 3.
@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(correct, total, low, high):
    interval = wilson_interval(correct, total)
    assert interval.low == pytest.approx(low, abs=5e-5)
    assert interval.high == pytest.approx(high, abs=5e-5)


def test_wilson_by_hand():
    # z = 1.959964, z^2 = 3.841459; n = 10, p = 0.5: centre 0.5,
    # half = 1.959964 * sqrt(0.025 + 3.841459 / 400) / 1.3841459 = 0.2634067
    interval = wilson_interval(5, 10)
    assert interval.low == pytest.approx(0.5 - 0.2634067, abs=1e-6)
    assert interval.high == pytest.approx(0.5 + 0.2634067, abs=1e-6)


@pytest.mark.parametrize("total", [1, 3, 7, 1000, 10**6])
def test_wilson_ends_are_exact_and_one_sided(total):
    none, every = wilson_interval(0, total), wilson_interval(total, total)
    assert none.low == 0.0
    assert 0.0 < none.high < 1.0
    assert every.high == 1.0
    assert every.low == pytest.approx(1.0 - none.high)


def test_wilson_covers_the_true_proportion():
    rng = np.random.default_rng(0)
    for truth in (0.05, 0.5, 0.99):
        drawn = rng.binomial(200, truth, size=4000)
        counts = np.bincount(drawn, minlength=201)
        covered = sum(
            int(count)
            for correct, count in enumerate(counts)
            if count
            and wilson_interval(correct, 200).low <= truth <= wilson_interval(correct, 200).high
        )
        assert 0.93 < covered / 4000 < 0.98


def test_wilson_narrows_with_confidence_and_samples():
    def width(interval):
        return interval.high - interval.low

    assert width(wilson_interval(9, 10, 0.5)) < width(wilson_interval(9, 10, 0.99))
    assert width(wilson_interval(900, 1000)) < width(wilson_interval(9, 10))


def test_wilson_takes_integers_of_numpy():
    assert wilson_interval(np.int64(81), np.int32(263)) == wilson_interval(81, 263)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), "total = 0"),
        ((3, 2), "correct = 3: must be at most total = 2"),
        ((-1, 2), "correct = -1"),
        ((0.5, 2), "correct = 0.5: must be an integer"),
        ((1, 2, 1.0), "confidence = 1.0"),
        ((1, 2, math.nan), "confidence = nan"),
    ],
)
def test_wilson_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        wilson_interval(*arguments)


def test_t_interval_by_hand():
    # mean 2, s = 1, t_{2, 0.975} = 4.302653: half = 4.302653 / sqrt(3) = 2.484138
    mean, low, high, count = mean_interval([1.0, 2.0, 3.0])
    assert (mean, count) == (2.0, 3)
    assert low == pytest.approx(2 - 2.484138, abs=1e-6)
    assert high == pytest.approx(2 + 2.484138, abs=1e-6)


def test_t_interval_is_cut_to_the_bounds():
    free = mean_interval([0.99, 1.0, 0.98])
    cut = mean_interval([0.99, 1.0, 0.98], bounds=(0.0, 1.0))
    assert free.high > 1.0
    assert cut.high == 1.0
    assert cut.low == free.low


def test_t_interval_covers_and_the_bootstrap_of_few_seeds_does_not():
    rng = np.random.default_rng(1)

    def coverage(**settings):
        runs = rng.normal(size=(400, 4))
        intervals = [mean_interval(list(values), **settings) for values in runs]
        return sum(i.low <= 0.0 <= i.high for i in intervals) / len(intervals)

    assert 0.92 < coverage() < 0.98
    assert coverage(method="bootstrap", resamples=400) < 0.9


def test_bootstrap_of_many_values_agrees_with_t_and_repeats():
    values = list(np.random.default_rng(2).normal(3.0, 0.5, size=400))
    student = mean_interval(values)
    bootstrap = mean_interval(values, method="bootstrap")
    assert bootstrap.mean == student.mean
    assert bootstrap.low == pytest.approx(student.low, abs=0.005)
    assert bootstrap.high == pytest.approx(student.high, abs=0.005)
    assert bootstrap == mean_interval(values, method="bootstrap")


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        ([0.5], {}, "two or more"),
        ([[0.5, 0.5]], {}, "two or more"),
        ([0.5, math.nan], {}, r"values\[1\] = nan: must be finite"),
        ([0.5, 1.5], {"bounds": (0, 1)}, r"values\[1\] = 1.5: must be between 0 and 1"),
        ([0.5, 0.6], {"method": "normal"}, "method = 'normal': must be one of t, bootstrap"),
        ([0.5, 0.6], {"confidence": 0.0}, "confidence = 0.0"),
        ([0.5, 0.6], {"method": "bootstrap", "resamples": 0}, "resamples = 0"),
    ],
)
def test_mean_interval_refuses(values, settings, message):
    with pytest.raises(ConfigError, match=message):
        mean_interval(values, **settings)
