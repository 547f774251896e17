"""Decays between the tokens of a chunk."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def decay_between(total: jax.Array, later: jax.Array | None = None) -> jax.Array:
    """``exp(later_t - total_j)`` for ``j <= t``, else 0: what is left at t of what j wrote.

    The difference is taken before the exponential, so that nothing overflows however strong the
    decay: ``exp(total_t) / exp(total_j)`` would be 0 / 0.

    Args:
      total: ``[b, t, ...]``, log decays summed up to and including a token.
      later: the same at the reading end, where it is not ``total``; then only ``j < t`` counts.

    Returns:
      ``[b, t, j, ...]``.
    """
    count = total.shape[1]
    reading = total if later is None else later
    places = jnp.arange(count)
    distance = places[:, None] - places[None]
    seen = distance >= 0 if later is None else distance > 0
    seen = seen.reshape(1, count, count, *(1,) * (total.ndim - 2))
    difference = reading[:, :, None] - total[:, None]
    # The exponential of what is not seen would overflow: chosen before it, for the gradient's sake.
    return jnp.exp(jnp.where(seen, difference, -jnp.inf))
