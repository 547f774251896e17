"""What ARMT's memory tokens write, segment after segment: new keys, or the same ones again.

A delta rule that meets a key again replaces what stood under it. So where the memory tokens have
the same keys in every segment, a memory holds the last segment only, whatever its size.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.inspection.observe import observe
from armt_jax.models.armt import ARMT
from armt_jax.models.protocol import Params, Segment


class Writes(NamedTuple):
    """Means over texts, segments and memory tokens, one entry a layer.

    Attributes:
      same_token: cosine of a memory token's key features with its own of the segment before.
      same_segment: cosine of two memory tokens' key features in one segment.
      gate: ``beta``.
    """

    same_token: jax.Array
    same_segment: jax.Array
    gate: jax.Array


def memory_writes(model: ARMT, params: Params, tokens: jax.Array, mask: jax.Array) -> Writes:
    """Read texts ``[b, s, t]`` from empty memories; segments of padding only are left out.

    Raises:
      ConfigError: as ``observe``.
    """
    segments = Segment(jnp.swapaxes(tokens, 0, 1), jnp.swapaxes(mask, 0, 1))
    _, seen = observe(model, params, model.init_state(tokens.shape[0]), segments)
    keys = seen.keys  # [s, l, b, m, k]
    unit = keys / (jnp.linalg.norm(keys, axis=-1, keepdims=True) + 1e-30)
    there = jnp.any(segments.mask, axis=-1)[:, None, :, None]  # [s, 1, b, 1]
    again = jnp.einsum("slbmk,slbmk->slbm", unit[1:], unit[:-1])
    count = keys.shape[3]
    between = jnp.einsum("slbmk,slbnk->slb", unit, unit)[..., None] - count
    return Writes(
        _mean(again, there[1:]),
        _mean(between / max(1, count * (count - 1)), there),
        _mean(seen.beta, there),
    )


def _mean(values: jax.Array, there: jax.Array) -> jax.Array:
    """``[l]`` of ``[s, l, b, m]``, where ``there [s, 1, b, 1]``."""
    weights = jnp.broadcast_to(there, values.shape).astype(values.dtype)
    return jnp.sum(values * weights, axis=(0, 2, 3)) / jnp.sum(weights, axis=(0, 2, 3))
