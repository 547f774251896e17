"""Masked attention of one segment, and rotary positions.

Axis letters: ``b`` batch, ``t`` token, ``s`` key, ``h`` head, ``g`` head of keys and values (as
many as ``h``, or fewer that several heads share), ``e`` dimension of a head.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Queries of a block. Shorter ones skip more of the scores and make smaller products.
QUERY_BLOCK = 128


class KeyValues(NamedTuple):
    """Keys and values of earlier positions: ``k, v [b, s, g, e]``."""

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


def segment_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    attend: jax.Array,
    past: KeyValues | None,
    last: int | None,
) -> jax.Array:
    """Attention of a segment's positions (the ``last`` of them, or all) to ``past`` and themselves.

    In a long segment queries go in blocks, each with the keys up to its end: the scores behind
    would be masked, half of all, and they are most of what a narrow model computes.

    Args:
      q: ``[b, t, h, e]``.
      k, v: ``[b, t, g, e]``; consecutive heads of queries share a head of keys.
      attend: ``[b or 1, t, s]``, the past first; no position sees a later one.
      past: earlier keys and values.
      last: rows of the result; None for all ``t``.
    """
    blockwise = last is None
    q, k, v = (x.swapaxes(1, 2) for x in (tail(q, last), *append(past, k, v)))
    attend = tail(attend, last)
    total = q.shape[2]
    count = max(1, total // QUERY_BLOCK) if blockwise else 1
    edges = [total * index // count for index in range(count + 1)]
    parts = []
    for start, stop in pairwise(edges):
        keys = k.shape[2] - (total - stop if blockwise else 0)
        seen = attend[:, start:stop, :keys]
        parts.append(attention(q[:, :, start:stop], k[:, :, :keys], v[:, :, :keys], seen))
    return (parts[0] if count == 1 else jnp.concatenate(parts, axis=2)).swapaxes(1, 2)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, attend: jax.Array) -> jax.Array:
    """Softmax attention: ``q [b, h, t, e]``, ``k, v [b, g, s, e]``, mask ``[b or 1, t, s]``.

    Scores and softmax are float32 (or wider). A row with nothing to attend to is uniform, not NaN.
    The products are divided by the softmax's sum, not the weights: there are fewer of them.
    Heads that share keys are further queries to them, so no key is copied.
    """
    batch, heads, length, _ = q.shape
    sharing = heads // k.shape[1]
    if sharing > 1:
        grouped = q.reshape(batch, k.shape[1], sharing * length, -1)
        out = attention(grouped, k, v, jnp.tile(attend, (1, sharing, 1)))
        return out.reshape(batch, heads, length, -1)
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("bhte,bhse->bhts", q, k, preferred_element_type=wide)
    scores = scores * (1.0 / q.shape[-1] ** 0.5)
    scores = jnp.where(attend[:, None], scores, jnp.finfo(scores.dtype).min)
    largest = lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - largest)
    out = jnp.einsum("bhts,bhse->bhte", weights.astype(v.dtype), v, preferred_element_type=wide)
    return (out / jnp.sum(weights, axis=-1, keepdims=True)).astype(v.dtype)


def rotary(
    x: jax.Array,
    positions: jax.Array,
    *,
    dims: int,
    base: float,
    scaling: tuple[float, ...] = (),
) -> jax.Array:
    """Rotate the first ``dims`` of each head by its position (half-split pairs: GPT-NeoX, Llama).

    Args:
      x: ``[b, t, h, e]``.
      positions: ``[b or 1, t]`` int32.
      dims: rotated dimensions, even.
      base: of the geometric frequencies.
      scaling: see ``frequency_divisors``.
    """
    table = jnp.promote_types(x.dtype, jnp.float32)
    inverse = 1.0 / base ** (jnp.arange(0, dims, 2, dtype=table) / dims)
    if scaling:
        inverse /= jnp.asarray(frequency_divisors(dims, base, scaling), table)
    angle = positions.astype(table)[:, :, None] * inverse[None, None, :]
    angle = jnp.concatenate([angle, angle], axis=-1)[:, :, None, :]
    turned, kept = x[..., :dims].astype(table), x[..., dims:]
    first, second = jnp.split(turned, 2, axis=-1)
    rotated = turned * jnp.cos(angle) + jnp.concatenate([-second, first], -1) * jnp.sin(angle)
    return jnp.concatenate([rotated.astype(x.dtype), kept], axis=-1)


def frequency_divisors(dims: int, base: float, scaling: tuple[float, ...]) -> np.ndarray:
    """By what Llama 3 divides each of the ``dims / 2`` rotary frequencies; float64.

    With ``scaling = (factor, low, high, positions)``: 1 where a frequency turns ``high`` times or
    more within ``positions`` tokens, ``factor`` where it turns ``low`` times or less; between
    them the frequency goes linearly, with its turns, from the one to the other. Source:
    ``rope_type = "llama3"`` of Llama 3.1's ``config.json`` (arXiv 2407.21783 has its base only).
    """
    factor, low, high, positions = scaling
    turns = positions * base ** (-np.arange(0, dims, 2) / dims) / (2 * np.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / (kept + (1 - kept) / factor)


def append(past: KeyValues | None, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Keys and values with the earlier ones in front."""
    if past is None:
        return k, v
    return jnp.concatenate([past.k, k], axis=1), jnp.concatenate([past.v, v], axis=1)


def tail(x: jax.Array, last: int | None) -> jax.Array:
    """The last ``last`` entries along axis 1; all of them for None."""
    return x if last is None else x[:, x.shape[1] - last :]
