"""How the next token is chosen from logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from armt_jax.generation import Sampling, sample_token


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1e-6),
        Sampling(temperature=1e-44),
        Sampling(temperature=2.0, top_k=1),
        Sampling(temperature=2.0, top_p=1e-6),
    ],
)
def test_limits_of_sampling_are_greedy(sampling: Sampling) -> None:
    logits = jax.random.normal(jax.random.key(0), (500, 9))
    chosen = sample_token(logits, jax.random.key(1), sampling)
    np.testing.assert_array_equal(chosen, sample_token(logits, jax.random.key(2), Sampling()))
    np.testing.assert_array_equal(chosen, np.argmax(logits, axis=-1))


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0), [0, 1, 2]),
        (Sampling(temperature=0.5), [0, 1, 2]),
        (Sampling(temperature=3.0), [0, 1, 2]),
        (Sampling(temperature=1.0, top_k=2), [0, 2]),
        (Sampling(temperature=1.0, top_k=3), [0, 1, 2]),
        (Sampling(temperature=1.0, top_k=50), [0, 1, 2]),
        # Probabilities are 0.5, 0.2, 0.3: two tokens are needed for 0.6, all for 0.9.
        (Sampling(temperature=1.0, top_p=0.6), [0, 2]),
        (Sampling(temperature=1.0, top_p=0.9), [0, 1, 2]),
        (Sampling(temperature=1.0, top_p=0.4), [0]),
        # The nucleus is that of the tempered probabilities 0.66, 0.11, 0.24.
        (Sampling(temperature=0.5, top_p=0.6), [0]),
        # And of those that top_k leaves, 0.625 and 0.375.
        (Sampling(temperature=1.0, top_k=2, top_p=0.6), [0]),
    ],
)
def test_samples_are_distributed_as_the_softmax(sampling: Sampling, kept: list[int]) -> None:
    draws = 20_000
    probabilities = np.array([0.5, 0.2, 0.3])
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(probabilities)), (draws, 3)) + 7.0
    counts = np.bincount(sample_token(logits, jax.random.key(3), sampling), minlength=3)
    weights = probabilities[kept] ** (1 / sampling.temperature)
    expected = draws * weights / weights.sum()
    assert counts[kept].sum() == draws
    # Chi-square of at most two degrees of freedom: over 18.4 once in ten thousand.
    assert np.sum((counts[kept] - expected) ** 2 / expected) < 18.4
