"""The sliding-window variant: keys and values of the previous segment's tokens."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.attention import KeyValues
from armt_jax.models.protocol import Segment


class Window(NamedTuple):
    """Keys and values of the previous segment's tokens, for the sliding-window variant.

    Attributes:
      k, v: ``[l, b, w, g, e]``.
      mask: ``[b, w]`` bool, False at padding and where nothing has been read.
      length: int32 scalar, positions of the next segment go on from here.
    """

    k: jax.Array
    v: jax.Array
    mask: jax.Array
    length: jax.Array


def next_window(window: Window, own: KeyValues, segment: Segment) -> Window:
    """The segment's tokens become the window: detached, memory tokens left out."""
    length, room = segment.tokens.shape[1], window.mask.shape[1]
    if length > room:
        raise ValueError(f"segment of {length} tokens: longer than the sliding window of {room}")

    def fit(leaf: jax.Array) -> jax.Array:
        tokens = lax.stop_gradient(leaf[:, :, :length])
        return jnp.pad(tokens, ((0, 0), (0, 0), (0, room - length), (0, 0), (0, 0)))

    mask = jnp.pad(segment.mask, ((0, 0), (0, room - length)))
    return Window(fit(own.k), fit(own.v), mask, jnp.asarray(length, jnp.int32))
