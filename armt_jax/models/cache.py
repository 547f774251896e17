"""Token-by-token reading of a last segment: keys and values are cached, the memory is only read."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.attention import KeyValues, SegmentContext


class Cache(NamedTuple):
    """What a last segment has been read so far.

    Attributes:
      kv: stacked, ``[l, b, w, g, e]``.
      mask: ``[b, w]`` bool, the places that are filled.
      index: int32 scalar, the next place.
      position: ``[b]`` int32, the position of the next token (padding takes none).
    """

    kv: KeyValues
    mask: jax.Array
    index: jax.Array
    position: jax.Array


def prompt_positions(mask: jax.Array) -> jax.Array:
    """Positions ``[b, t]`` of a prompt's tokens, from 0; padding takes none."""
    return jnp.maximum(jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1, 0)


def filled(own: KeyValues, mask: jax.Array, position: jax.Array, room: int) -> Cache:
    """A cache of what has been read, with ``room`` places left.

    Args:
      own: keys and values ``[l, b, n, h, e]``.
      mask: ``[b, n]`` bool, which of them may be seen.
      position: ``[b]`` int32, of the next token.
      room: places for what follows.
    """
    pad = ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))
    return Cache(
        KeyValues(jnp.pad(own.k, pad), jnp.pad(own.v, pad)),
        jnp.pad(mask, ((0, 0), (0, room))),
        jnp.asarray(mask.shape[1], jnp.int32),
        position,
    )


def next_context(cache: Cache) -> SegmentContext:
    """What the layers must know of one more token."""
    own = jnp.ones((cache.mask.shape[0], 1), bool)
    attend = jnp.concatenate([cache.mask, own], axis=1)[:, None, :]
    return SegmentContext(cache.position[:, None], attend)


def extended(cache: Cache, own: KeyValues) -> Cache:
    """The cache with one more token, whose keys and values are ``own [l, b, 1, h, e]``."""
    kv = KeyValues(
        lax.dynamic_update_slice_in_dim(cache.kv.k, own.k, cache.index, axis=2),
        lax.dynamic_update_slice_in_dim(cache.kv.v, own.v, cache.index, axis=2),
    )
    one = jnp.ones((cache.mask.shape[0], 1), bool)
    mask = lax.dynamic_update_slice_in_dim(cache.mask, one, cache.index, axis=1)
    return Cache(kv, mask, cache.index + 1, cache.position + 1)
