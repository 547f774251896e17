"""The backbone alone, over all segments of a text: full attention, or a window of the last tokens.

Segments do not matter to it: a token sees all tokens before it, or the ``attention_window`` last
ones, in whatever segment they stand. Its state is a cache of their keys and values, a ring of
static length in which the token at position p has place ``p % n``. Padding takes neither a place
nor a position, so the positions of a text go on from one segment to the next.

With full attention ``n`` is ``context_tokens``. A text that outgrows it (``ModelConfig.check_text``
refuses it where its length is known) has hidden states of NaN from there on, not wrong ones.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.block_model import BlockModel
from armt_jax.models.layers import run_layers
from armt_jax.models.protocol import Params, Segment


class TransformerState(NamedTuple):
    """Keys and values of the tokens that later ones see.

    Attributes:
      k, v: ``[l, b, n, h, e]`` in the dtype of activations.
      read: ``[b]`` int32, tokens that have been read.
    """

    k: jax.Array
    v: jax.Array
    read: jax.Array


@dataclasses.dataclass(frozen=True)
class Transformer(BlockModel):
    """A GPT-2 or GPT-NeoX as a ``SegmentModel``; see ``SeamlessModel``."""

    seamless = True

    @property
    def places(self) -> int:
        """Length ``n`` of the ring."""
        return self.config.attention_window or self.config.context_tokens

    def init_state(
        self, batch_size: int, dtype: jax.typing.DTypeLike | None = None
    ) -> TransformerState:
        """Nothing read yet, by ``batch_size`` texts."""
        cfg = self.config
        dtype = jnp.dtype(dtype or cfg.dtype or jnp.result_type(float))
        shape = (cfg.n_layer, batch_size, self.places, cfg.kv_heads, cfg.head_dim)
        # Two arrays: a state is donated, and no buffer twice.
        keys, values = jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)
        return TransformerState(keys, values, jnp.zeros((batch_size,), jnp.int32))

    def step(
        self, params: Params, state: TransformerState, segment: Segment
    ) -> tuple[TransformerState, jax.Array]:
        """Read one segment. ``hidden [b, t, d]`` is the last block's output at the tokens."""
        return self._read(params, state, segment, None)

    def write(self, params: Params, state: TransformerState, segment: Segment) -> TransformerState:
        """As ``step``, without hidden states: of the last layer keys and values only."""
        return self._read(params, state, segment, 1)[0]

    def _read(
        self, params: Params, state: TransformerState, segment: Segment, last: int | None
    ) -> tuple[TransformerState, jax.Array]:
        positions, context = self._context(state, segment.mask)
        x = self.embed_tokens(params, segment.tokens, positions)

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, KeyValues]:
            params_l, past = scanned
            return self.apply_block(params_l, x, context, past, last)

        past = KeyValues(state.k.astype(x.dtype), state.v.astype(x.dtype))
        x, own = run_layers(layer, x, params["layers"], past, last)
        lost = jnp.zeros(positions.shape, bool)
        if not self.config.attention_window:
            lost = segment.mask & (positions >= self.places)
        x = jnp.where(lost[:, -x.shape[1] :, None], jnp.nan, x)
        return self._written(state, own, segment.mask, positions), x

    def _context(
        self, state: TransformerState, mask: jax.Array
    ) -> tuple[jax.Array, SegmentContext]:
        """Positions ``[b, t]`` behind what has been read, and which of ``n + t`` they see."""
        count = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
        positions = jnp.maximum(state.read[:, None] + count - 1, 0)
        newest = state.read[:, None] - 1
        place = jnp.arange(self.places, dtype=jnp.int32)[None]
        # The newest position that has this place; negative where none has been there.
        earlier = newest - (newest - place) % self.places
        length = mask.shape[1]
        seen = jnp.concatenate(
            [
                jnp.broadcast_to((earlier >= 0)[:, None], (*mask.shape, self.places)),
                jnp.tril(jnp.ones((length, length), bool))[None] & mask[:, None],
            ],
            axis=2,
        )
        if self.config.attention_window:
            keys = jnp.concatenate([earlier, positions], axis=1)[:, None]
            seen &= keys > positions[:, :, None] - self.config.attention_window
        return positions, SegmentContext(positions, seen)

    def _written(
        self, state: TransformerState, own: KeyValues, mask: jax.Array, positions: jax.Array
    ) -> TransformerState:
        read = state.read + jnp.sum(mask, axis=1, dtype=jnp.int32)
        # Of more tokens than places the last ones stay; what is not kept goes to no place at all.
        keep = mask & (positions >= read[:, None] - self.places)
        place = jnp.where(keep, positions % self.places, self.places)
        rows = jnp.arange(mask.shape[0])[:, None]

        def put(cache: jax.Array, own: jax.Array) -> jax.Array:
            return cache.at[:, rows, place].set(own.astype(cache.dtype), mode="drop")

        return TransformerState(put(state.k, own.k), put(state.v, own.v), read)

    def ask(self, params: Params, state: TransformerState, queries: Segment) -> jax.Array:
        """Hidden states ``[b, q, t, d]`` of queries ``[b, q, t]``, forked from one state.

        The queries of a text stand side by side as one segment in which none sees another, so that
        the cache is not copied for each.
        """
        batch, count, length = queries.tokens.shape
        side_by_side = queries.tokens.reshape(batch, count * length)
        positions, seen = self._query_context(state, queries.mask)
        x = self.embed_tokens(params, side_by_side, positions)
        context = SegmentContext(positions, seen)

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, None]:
            params_l, past = scanned
            return self.apply_block(params_l, x, context, past, last)[0], None

        past = KeyValues(state.k.astype(x.dtype), state.v.astype(x.dtype))
        x, _ = run_layers(layer, x, params["layers"], past)
        if not self.config.attention_window:
            x = jnp.where((state.read > self.places)[:, None, None], jnp.nan, x)
        return x.reshape(batch, count, length, -1)

    def _query_context(
        self, state: TransformerState, mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """``_context`` of queries ``[b, q, t]``: positions ``[b, q t]``, mask ``[.., n + q t]``."""
        batch, count, length = mask.shape
        forked = state._replace(read=jnp.repeat(state.read, count, axis=0))
        positions, context = self._context(forked, mask.reshape(batch * count, length))
        past, own = jnp.split(context.attend, [self.places], axis=2)
        own = own.reshape(batch, count, length, 1, length)
        same = jnp.eye(count, dtype=bool)[None, :, None, :, None]
        own = (own & same).reshape(batch, count * length, count * length)
        past = past.reshape(batch, count * length, self.places)
        positions = positions.reshape(batch, count * length)
        return positions, jnp.concatenate([past, own], axis=2)
