"""The capacity estimate against the paper's formula and a simulated memory of known capacity."""

import numpy as np
import pytest

from armt_jax.config import ConfigError
from armt_jax.evaluation.capacity import estimate_capacity, estimate_pairs, num_values


def ask_memory(stored: int, pairs: int, values: int, samples: int, seed: int) -> int:
    """Right answers of a memory that holds ``stored`` of ``pairs`` pairs and guesses the rest."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(values, size=(samples, pairs))
    kept = rng.permuted(np.tile(np.arange(pairs) < stored, (samples, 1)), axis=1)
    answers = np.where(kept, truth, rng.integers(values, size=truth.shape))
    asked = rng.integers(pairs, size=samples)
    rows = np.arange(samples)
    return int(np.sum(answers[rows, asked] == truth[rows, asked]))


@pytest.mark.parametrize(("stored", "pairs"), [(0, 10), (3, 10), (10, 10), (30, 200), (150, 200)])
def test_estimate_finds_the_capacity_of_a_simulated_memory(stored, pairs):
    samples = 20_000
    correct = ask_memory(stored, pairs, 16, samples, seed=stored)
    estimate = estimate_capacity(correct, samples, pairs, 16)
    alpha = correct / samples
    noise = pairs * 16 / 15 * np.sqrt(alpha * (1 - alpha) / samples)
    assert abs(estimate.pairs - stored) <= 4 * noise
    assert estimate.low <= estimate.pairs <= estimate.high


def test_interval_covers_the_capacity_of_a_simulated_memory():
    trials = 300
    covered = 0
    for seed in range(trials):
        estimate = estimate_capacity(ask_memory(6, 10, 4, 200, seed), 200, 10, 4)
        covered += estimate.low <= 6 <= estimate.high
    assert 0.91 < covered / trials < 0.99


def test_estimate_by_hand():
    # n = 50, v = 16, alpha = 0.7: 50 * (11.2 - 1) / 15 = 34
    assert estimate_pairs(0.7, 50, 16) == pytest.approx(34.0)
    assert estimate_pairs(1.0, 50, 16) == 50.0
    assert estimate_pairs(1 / 16, 50, 16) == 0.0


def test_below_chance_is_negative_unless_clipped():
    assert estimate_pairs(0.0, 30, 16) == 0.0
    assert estimate_pairs(0.0, 30, 16, clip=False) == pytest.approx(-2.0)
    assert estimate_pairs(0.5, 30, 16, clip=False) == estimate_pairs(0.5, 30, 16)


def test_unclipped_estimate_is_unbiased_where_the_clipped_is_not():
    correct = [ask_memory(0, 20, 16, 50, seed) for seed in range(800)]
    free = np.array([estimate_pairs(c / 50, 20, 16, clip=False) for c in correct])
    cut = np.array([estimate_pairs(c / 50, 20, 16) for c in correct])
    error = free.std() / np.sqrt(free.size)
    assert abs(free.mean()) < 3 * error
    assert cut.mean() > 3 * error


def test_interval_is_clipped_and_ordered():
    nothing = estimate_capacity(0, 100, 50, 16)
    assert (nothing.pairs, nothing.low) == (0.0, 0.0)
    everything = estimate_capacity(100, 100, 50, 16)
    assert (everything.pairs, everything.high) == (50.0, 50.0)
    assert 45 < everything.low < 50


def test_number_of_values():
    assert [num_values(size) for size in (1, 2, 3)] == [16, 256, 4096]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.5, 10, 16), "exact_match = 1.5: must be between 0 and 1"),
        ((float("nan"), 10, 16), "exact_match = nan"),
        ((0.5, 0, 16), "num_pairs = 0: must be at least 1"),
        ((0.5, 10, 1), "possible_values = 1: must be at least 2"),
    ],
)
def test_estimate_refuses(arguments, message):
    with pytest.raises(ConfigError, match=message):
        estimate_pairs(*arguments)


def test_capacity_and_values_refuse():
    with pytest.raises(ConfigError, match="correct = 11: must be at most total = 10"):
        estimate_capacity(11, 10, 5, 16)
    with pytest.raises(ConfigError, match="value_size = 0: must be at least 1"):
        num_values(0)
