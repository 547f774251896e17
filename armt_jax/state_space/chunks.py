"""A segment in chunks of tokens: what is computed side by side, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Carried = TypeVar("Carried")


def scan_chunks(
    body: Callable[[Carried, Any], tuple[Carried, jax.Array]],
    state: Carried,
    inputs: Any,
    chunk: int,
    recompute: bool = False,
) -> tuple[Carried, jax.Array]:
    """``body`` over chunks of tokens, each from the state that the one before has left.

    What is longer than a chunk is computed again in the backward pass: one state is kept for each
    chunk, and the activations of one chunk at a time.

    Args:
      body: ``(state, inputs [b, c, ...]) -> (state, y [b, c, ...])``, for which zeros are neutral.
      state: before the first token.
      inputs: leaves ``[b, t, ...]``.
      chunk: tokens of a chunk, at least 1.
      recompute: what is not longer than a chunk is computed again, too.

    Returns:
      The state after the last token, and ``y [b, t, ...]``.
    """
    batch, length = jax.tree.leaves(inputs)[0].shape[:2]
    if length <= chunk:
        return (jax.checkpoint(body) if recompute else body)(state, inputs)
    count = -(-length // chunk)

    def split(leaf: jax.Array) -> jax.Array:
        rest = [(0, 0)] * (leaf.ndim - 2)
        leaf = jnp.pad(leaf, [(0, 0), (0, count * chunk - length), *rest])
        return leaf.reshape(batch, count, chunk, *leaf.shape[2:]).swapaxes(0, 1)

    pieces = jax.tree.map(split, inputs)
    state, y = lax.scan(jax.checkpoint(body, prevent_cse=False), state, pieces)
    return state, y.swapaxes(0, 1).reshape(batch, count * chunk, *y.shape[3:])[:, :length]
