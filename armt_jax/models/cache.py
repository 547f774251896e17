"""Token-by-token reading of a last segment: key-value cache, memory read and never written."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.memory.associative import MemoryState
from armt_jax.models import backbones
from armt_jax.models.armt import ARMT, ArmtState
from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.protocol import Params, Segment


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


def prefill(
    model: ARMT, params: Params, state: ArmtState, prompt: Segment, room: int
) -> tuple[Cache, jax.Array]:
    """Read a prompt ``[b, t]`` at once, with ``room`` places left for what follows.

    Returns:
      The cache, and the hidden state ``[b, d]`` of the last token.
    """
    length = prompt.tokens.shape[1]
    positions = jnp.maximum(jnp.cumsum(prompt.mask, axis=1, dtype=jnp.int32) - 1, 0)
    attend = jnp.tril(jnp.ones((length, length), bool))[None] & prompt.mask[:, None, :]
    x, own = _layers(model, params, state, prompt.tokens, SegmentContext(positions, attend), None)
    pad = ((0, 0), (0, 0), (0, room), (0, 0), (0, 0))
    cache = Cache(
        KeyValues(jnp.pad(own.k, pad), jnp.pad(own.v, pad)),
        jnp.pad(prompt.mask, ((0, 0), (0, room))),
        jnp.asarray(length, jnp.int32),
        positions[:, -1] + 1,
    )
    return cache, x[:, -1]


def decode(
    model: ARMT, params: Params, state: ArmtState, cache: Cache, token: jax.Array
) -> tuple[Cache, jax.Array]:
    """Read one more token ``[b]``: the new cache and its hidden state ``[b, d]``."""
    batch = token.shape[0]
    attend = jnp.concatenate([cache.mask, jnp.ones((batch, 1), bool)], axis=1)[:, None, :]
    context = SegmentContext(cache.position[:, None], attend)
    x, own = _layers(model, params, state, token[:, None], context, cache.kv)
    kv = KeyValues(
        lax.dynamic_update_slice_in_dim(cache.kv.k, own.k, cache.index, axis=2),
        lax.dynamic_update_slice_in_dim(cache.kv.v, own.v, cache.index, axis=2),
    )
    mask = lax.dynamic_update_slice_in_dim(
        cache.mask, jnp.ones((batch, 1), bool), cache.index, axis=1
    )
    return Cache(kv, mask, cache.index + 1, cache.position + 1), x[:, 0]


def _layers(
    model: ARMT,
    params: Params,
    state: ArmtState,
    tokens: jax.Array,
    context: SegmentContext,
    past: KeyValues | None,
) -> tuple[jax.Array, KeyValues]:
    x = backbones.embed_tokens(model.config, params["embed"], tokens, context.positions)
    x = x.astype(model.compute_dtype(params))

    def layer(x: jax.Array, scanned: tuple) -> tuple[jax.Array, KeyValues]:
        params_l, memory, past_l = scanned
        return model.apply_block(params_l, model.recall(params_l, memory, x), context, past_l)

    return lax.scan(layer, x, (params["layers"], MemoryState(*state[:3]), past))
