"""Associative Recurrent Memory Transformer (arXiv 2407.04841) over any backbone.

A segment is ``[tokens; memory tokens]``. In every layer all positions first recall from the
layer's associative memory (Eq. 4), the block runs, and the block's output at the memory tokens is
written (Eqs. 1-3). The memory tokens stand last under a causal mask: they see the whole segment,
and no token sees them. Only the associative memories travel to the next segment.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.memory import associative
from armt_jax.models import backbones
from armt_jax.models.armt_layer import ArmtLayer
from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.cache import Cache, filled, prompt_positions
from armt_jax.models.layers import run_layers
from armt_jax.models.projections import MemoryProjections
from armt_jax.models.protocol import Params, Segment
from armt_jax.models.window import Window, next_window


class ArmtState(NamedTuple):
    """The associative memories of all layers (see ``MemoryState``), and the window if there is one.

    Attributes:
      A: ``[l, b, k, d]`` float32.
      z: ``[l, b, k]`` float32, ``[l, b, 0]`` for a rule without normaliser.
      written: ``[l, b]``.
      window: of the sliding-window variant, else None.
    """

    A: jax.Array
    z: jax.Array
    written: jax.Array
    window: Window | None = None


@dataclasses.dataclass(frozen=True)
class ARMT(ArmtLayer):
    """ARMT as a ``SegmentModel``: pure functions of parameters, state and segment."""

    def init_layer(self, rng: jax.Array, dtype: jax.typing.DTypeLike) -> Params:
        """Parameters of one layer: ``block`` and ``memory``."""
        block_rng, memory_rng = jax.random.split(rng)
        x = jnp.zeros((1, 1, self.config.d_model), dtype)
        memory = MemoryProjections(self.config, dtype).init(memory_rng, x)["params"]
        return {**super().init_layer(block_rng, dtype), "memory": memory}

    def init_state(
        self,
        batch_size: int,
        dtype: jax.typing.DTypeLike | None = None,
        window: int | None = None,
    ) -> ArmtState:
        """Empty memories.

        Args:
          batch_size: number of texts.
          dtype: dtype the model computes in; by default ``config.dtype`` or JAX's float.
            The memories themselves are never narrower than float32.
          window: number of tokens of the sliding window, None for the usual model.
        """
        cfg = self.config
        dtype = jnp.dtype(dtype or cfg.dtype or jnp.result_type(float))
        one = associative.init_state(self.rule, batch_size, self.features, cfg.d_model, dtype)
        stacked = jax.tree.map(lambda x: jnp.zeros((cfg.n_layer, *x.shape), x.dtype), one)
        if window is None:
            return ArmtState(*stacked)
        shape = (cfg.n_layer, batch_size, window, cfg.kv_heads, cfg.head_dim)
        empty = jnp.zeros(shape, dtype)
        mask = jnp.zeros((batch_size, window), bool)
        window_state = Window(empty, empty, mask, jnp.zeros((), jnp.int32))
        return ArmtState(*stacked, window=window_state)

    def embed(
        self, params: Params, segment: Segment, offset: jax.Array | int = 0
    ) -> tuple[jax.Array, SegmentContext]:
        """``[tokens; memory tokens]`` ``[b, t + m, d]`` and what the layers must know of them."""
        cfg = self.config
        batch, length = segment.tokens.shape
        total = length + cfg.num_mem_tokens
        positions = (offset + jnp.arange(total, dtype=jnp.int32))[None]
        if segment.length is not None:
            early = (length - segment.length)[:, None]
            positions = positions - jnp.where(jnp.arange(total) < length, 0, early)
        x = backbones.embed_tokens(cfg, params["embed"], segment.tokens, positions[:, :length])
        memory = backbones.embed_memory(cfg, params["embed"], positions[:, length:])
        memory = jnp.broadcast_to(memory, (batch, *memory.shape[1:]))
        x = jnp.concatenate([x, memory], axis=1).astype(self.compute_dtype(params))
        columns = jnp.concatenate(
            [segment.mask, jnp.ones((batch, cfg.num_mem_tokens), bool)], axis=1
        )
        attend = jnp.tril(jnp.ones((total, total), bool))[None] & columns[:, None, :]
        return x, SegmentContext(positions, attend, jnp.any(segment.mask, axis=1))

    def step(
        self, params: Params, state: ArmtState, segment: Segment
    ) -> tuple[ArmtState, jax.Array]:
        """Read one segment. ``hidden [b, t, d]`` is the last block's output at the tokens."""
        state, x = self._read(params, state, segment, None)
        return state, x[:, : segment.tokens.shape[1]]

    def write(self, params: Params, state: ArmtState, segment: Segment) -> ArmtState:
        """As ``step``, without hidden states: the last layer computes its memory tokens only."""
        return self._read(params, state, segment, self.config.num_mem_tokens)[0]

    def gate_logits(self, params: Params, state: ArmtState, segment: Segment) -> jax.Array:
        """The logits ``[l, b, m]`` of the gates that a segment would write with; writes nothing."""
        x, context = self.embed(params, segment)
        count = self.config.num_mem_tokens

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, jax.Array]:
            params_l, memory = scanned
            x, _ = self.apply_block(params_l, self.recall(params_l, memory, x), context, None, last)
            return x, self.gate_logits_of(params_l, x[:, -count:])

        memories = associative.MemoryState(*state[:3])
        return run_layers(layer, x, params["layers"], memories, count)[1]

    def _read(
        self, params: Params, state: ArmtState, segment: Segment, last: int | None
    ) -> tuple[ArmtState, jax.Array]:
        window = state.window
        x, context = self.embed(params, segment, 0 if window is None else window.length)
        if window is not None:
            shape = (*x.shape[:2], window.mask.shape[1])
            earlier = jnp.broadcast_to(window.mask[:, None, :], shape)
            attend = jnp.concatenate([earlier, context.attend], axis=-1)
            context = context._replace(attend=attend)
        past = None if window is None else KeyValues(window.k, window.v)
        memories = associative.MemoryState(*state[:3])
        keep = window is not None

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, Any]:
            params_l, (memory, past_l) = scanned
            memory, x, own = self.layer(params_l, memory, x, context, past_l, last)
            return x, (memory, own if keep else None)

        x, (memories, own) = run_layers(layer, x, params["layers"], (memories, past), last)
        window = None if window is None else next_window(window, own, segment)
        return ArmtState(*memories, window=window), x

    def ask(self, params: Params, state: ArmtState, queries: Segment) -> jax.Array:
        """Hidden states ``[b, q, t, d]`` of queries ``[b, q, t]``, forked from one state.

        Memory tokens would come after every token of the query and nothing is written, so there
        are none. The sliding window is not offered here.
        """
        if state.window is not None:
            raise ValueError("ask: the sliding-window variant has no forked queries; use step")
        x, context = self.embed_queries(params, queries)
        return self.ask_layers(params["layers"], state, x, context)

    def embed_queries(self, params: Params, queries: Segment) -> tuple[jax.Array, SegmentContext]:
        """Queries ``[b, q, t]`` as the first layer's input ``[b, q, t, d]``; see ``ask``."""
        batch, count, length = queries.tokens.shape
        positions = jnp.arange(length, dtype=jnp.int32)[None]
        tokens = queries.tokens.reshape(batch * count, length)
        x = backbones.embed_tokens(self.config, params["embed"], tokens, positions)
        x = x.astype(self.compute_dtype(params))
        columns = queries.mask.reshape(batch * count, 1, length)
        attend = jnp.tril(jnp.ones((length, length), bool))[None] & columns
        return x.reshape(batch, count, length, -1), SegmentContext(positions, attend)

    def ask_layers(
        self, layers: Params, state: ArmtState, x: jax.Array, context: SegmentContext
    ) -> jax.Array:
        """``x [b, q, t, d]`` after stacked ``layers`` that read their memories ``state``."""
        batch, count, length = x.shape[:3]

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, None]:
            params_l, memory = scanned
            x = self.recall(params_l, memory, x.reshape(batch, count * length, -1))
            x, _ = self.apply_block(
                params_l, x.reshape(batch * count, length, -1), context, None, last
            )
            return x, None

        memories = associative.MemoryState(*state[:3])
        x, _ = run_layers(layer, x.reshape(batch * count, length, -1), layers, memories)
        return x.reshape(batch, count, length, -1)

    def reading_layers(
        self,
        params: Params,
        state: ArmtState,
        x: jax.Array,
        context: SegmentContext,
        past: KeyValues | None,
    ) -> tuple[jax.Array, KeyValues]:
        """See ``BlockModel``: every layer recalls, and none writes."""

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, KeyValues]:
            params_l, (memory, past_l) = scanned
            x = self.recall(params_l, memory, x)
            return self.apply_block(params_l, x, context, past_l, last)

        return run_layers(layer, x, params["layers"], (associative.MemoryState(*state[:3]), past))

    def prefill(
        self, params: Params, state: ArmtState, prompt: Segment, room: int
    ) -> tuple[Cache, jax.Array]:
        """Read a prompt ``[b, t]`` at once, with ``room`` places left for what follows.

        Returns:
          The cache, and the hidden state ``[b, d]`` of the last token.
        """
        length = prompt.tokens.shape[1]
        positions = prompt_positions(prompt.mask)
        attend = jnp.tril(jnp.ones((length, length), bool))[None] & prompt.mask[:, None, :]
        context = SegmentContext(positions, attend)
        x = self.embed_tokens(params, prompt.tokens, positions)
        x, own = self.reading_layers(params, state, x, context, None)
        return filled(own, prompt.mask, positions[:, -1] + 1, room), x[:, -1]
