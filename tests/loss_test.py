"""The next-token loss against a loop over positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import armt_jax
from armt_jax.training.loss import masked_mean

B, N, V = 3, 7, 5


def _loop(logits: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over selected positions, and its gradient, one position at a time."""
    total, count, grad = 0.0, 0, np.zeros_like(logits)
    for row in range(B):
        for i in range(N - 1):
            target = labels[row, i + 1]
            # Position i predicts token i + 1; the mask selects i, -100 strikes the target out.
            if mask[row, i] and target != -100:
                weights = np.exp(logits[row, i] - logits[row, i].max())
                p = weights / weights.sum()
                total -= np.log(p[target])
                grad[row, i] = p - np.eye(V)[target]
                count += 1
    return total / count, grad / count


def _inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, V, (B, N))
    labels[0, 0] = labels[0, 3] = labels[1, 6] = labels[2, 2] = -100
    return 3.0 * rng.normal(size=(B, N, V)), labels, rng.random((B, N)) < 0.6


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradient_equal_the_loop(masked: bool) -> None:
    logits, labels, mask = _inputs()
    expected, expected_grad = _loop(logits, labels, mask if masked else np.ones_like(mask))
    given = jnp.asarray(mask) if masked else None
    loss, grad = jax.value_and_grad(armt_jax.next_token_loss)(
        jnp.asarray(logits), jnp.asarray(labels), given
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    np.testing.assert_allclose(grad, expected_grad, rtol=1e-11, atol=1e-14)


def test_integer_mask_selects_as_a_bool_one() -> None:
    logits, labels, mask = _inputs()
    arrays = (jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    expected = armt_jax.next_token_loss(*arrays, jnp.asarray(mask))
    assert armt_jax.next_token_loss(*arrays, jnp.asarray(mask, jnp.int32)) == expected


def test_last_column_of_the_mask_is_not_used() -> None:
    logits, labels, mask = _inputs()
    arrays = (jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    flipped = mask.copy()
    flipped[:, -1] = ~flipped[:, -1]
    first, second = (armt_jax.next_token_loss(*arrays, jnp.asarray(m)) for m in (mask, flipped))
    assert first == second


@pytest.mark.parametrize("how", ["labels", "mask"])
def test_nothing_selected_is_zero_not_nan(how: str) -> None:
    logits, labels, _ = _inputs()
    labels = np.full_like(labels, -100) if how == "labels" else labels
    mask = jnp.zeros((B, N), bool) if how == "mask" else None
    loss, grad = jax.value_and_grad(armt_jax.next_token_loss)(
        jnp.asarray(logits, jnp.float32), jnp.asarray(labels), mask
    )
    assert loss == 0
    assert not np.any(grad)


def test_masked_mean_keeps_the_dtype() -> None:
    values = jnp.asarray([1.0, 2.0, 6.0], jnp.float32)
    mean = masked_mean(values, jnp.asarray([True, False, True]))
    assert mean == 3.5
    assert mean.dtype == jnp.float32
