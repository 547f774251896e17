"""Masked attention of one segment, and rotary positions.

Axis letters: ``b`` batch, ``t`` token, ``s`` key, ``h`` head, ``e`` dimension of a head.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class KeyValues(NamedTuple):
    """Keys and values of earlier positions: ``k, v [b, s, h, e]``."""

    k: jax.Array
    v: jax.Array


class SegmentContext(NamedTuple):
    """What every layer of one segment shares.

    Attributes:
      positions: ``[b or 1, t]`` int32, for rotary positions.
      attend: ``[b or 1, t, s]`` bool, which keys (earlier ones first) a position sees.
      write: ``[b]`` bool, False where the whole segment is padding; None: all write.
    """

    positions: jax.Array
    attend: jax.Array
    write: jax.Array | None = None


def attention(q: jax.Array, k: jax.Array, v: jax.Array, attend: jax.Array) -> jax.Array:
    """Softmax attention: ``q [b, t, h, e]``, ``k, v [b, s, h, e]``, mask ``[b or 1, t, s]``.

    Scores and softmax are float32 (or wider). A row with nothing to attend to is uniform, not NaN.
    """
    scores = jnp.einsum("bthe,bshe->bhts", q, k) * (1.0 / q.shape[-1] ** 0.5)
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    scores = jnp.where(attend[:, None], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhts,bshe->bthe", weights, v)


def rotary(x: jax.Array, positions: jax.Array, *, dims: int, base: float) -> jax.Array:
    """Rotate the first ``dims`` of each head by its position (half-split pairs, GPT-NeoX).

    Args:
      x: ``[b, t, h, e]``.
      positions: ``[b or 1, t]`` int32.
      dims: rotated dimensions, even.
      base: of the geometric frequencies.
    """
    table = jnp.promote_types(x.dtype, jnp.float32)
    inverse = 1.0 / base ** (jnp.arange(0, dims, 2, dtype=table) / dims)
    angle = positions.astype(table)[:, :, None] * inverse[None, None, :]
    angle = jnp.concatenate([angle, angle], axis=-1)[:, :, None, :]
    turned, kept = x[..., :dims].astype(table), x[..., dims:]
    first, second = jnp.split(turned, 2, axis=-1)
    rotated = turned * jnp.cos(angle) + jnp.concatenate([-second, first], -1) * jnp.sin(angle)
    return jnp.concatenate([rotated.astype(x.dtype), kept], axis=-1)


def append(past: KeyValues | None, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values with the earlier ones in front."""
    if past is None:
        return k, v
    return jnp.concatenate([past.k, k], axis=1), jnp.concatenate([past.v, v], axis=1)


def tail(x: jax.Array, last: int | None) -> jax.Array:
    """The last ``last`` entries along axis 1; all of them for None."""
    return x if last is None else x[:, x.shape[1] - last :]
