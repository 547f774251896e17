"""Parallel-memory RMT (arXiv 2407.04841, Appendix F.2): every layer passes on memory of its own.

A segment is ``[memory; tokens; memory]`` as RMT's. At each layer's input both copies are replaced
by what that layer gave out at the copy behind, in the segment before; in the first segment by
learned tokens of the layer. So nothing of the copy in front goes to the next layer, and a layer
needs no more of it than its keys and values: rows of the segment are ``[tokens; memory]`` here.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.block_model import BlockModel
from armt_jax.models.cache import Cache, filled, prompt_positions
from armt_jax.models.layers import run_layers
from armt_jax.models.memory_tokens import prefix_context, segment_layout, token_context
from armt_jax.models.protocol import Params, Segment
from armt_jax.models.rmt import blank_memory


class PrmtState(NamedTuple):
    """What a text has left in every layer so far; of one layer without the leading axis.

    Attributes:
      memory: ``[l, b, m, d]`` float32 (or wider), zeros before the first segment.
      written: ``[l, b]`` bool; where False, the layer's learned tokens are its memory.
    """

    memory: jax.Array
    written: jax.Array


@dataclasses.dataclass(frozen=True)
class PRMT(BlockModel):
    """PRMT as a ``LayerwiseModel`` whose queries go through its layers, too (``AskedByLayer``).

    ``params["embed"]["memory"]`` is read by nothing: the reference has it, and checkpoints go both
    ways.
    """

    def init_layer(self, rng: jax.Array, dtype: jax.typing.DTypeLike) -> Params:
        """Parameters of one layer: ``block`` and ``memory [m, d]``, drawn from N(0, 1).

        ``config.memory_token_init_scale`` multiplies the latter.
        """
        block_rng, memory_rng = jax.random.split(rng)
        shape = (self.config.num_mem_tokens, self.config.d_model)
        memory = jax.random.normal(memory_rng, shape, dtype)
        memory = self.config.memory_token_init_scale * memory
        return {**super().init_layer(block_rng, dtype), "memory": memory}

    def init_state(self, batch_size: int, dtype: jax.typing.DTypeLike | None = None) -> PrmtState:
        """Nothing read yet, by ``batch_size`` texts."""
        shape = (self.config.n_layer, batch_size)
        return PrmtState(blank_memory(self.config, shape, dtype), jnp.zeros(shape, bool))

    def embed(self, params: Params, segment: Segment) -> tuple[jax.Array, SegmentContext]:
        """``[tokens; room for memory]`` ``[b, t + m, d]``, and what the layers must know of it."""
        cfg, start = self.config, self.config.prefix_positions
        rows, context = segment_layout(cfg, segment, None)
        stop = start + segment.tokens.shape[1]
        tokens = self.embed_tokens(params, segment.tokens, rows[:, start:stop])
        x = jnp.pad(tokens, ((0, 0), (0, cfg.num_mem_tokens), (0, 0)))
        return x, context._replace(
            positions=context.positions[:, start:], attend=context.attend[:, start:]
        )

    def _memory(self, params_l: Params, memory: PrmtState, dtype: jnp.dtype) -> jax.Array:
        learned = params_l["memory"].astype(memory.memory.dtype)[None]
        current = jnp.where(memory.written[:, None, None], memory.memory, learned)
        return current.astype(dtype)

    def _in_front(self, params_l: Params, memory: jax.Array) -> KeyValues:
        """Keys and values of the copy in front; the rest of its block is not computed."""
        present = jnp.ones(memory.shape[:2], bool)
        return self.apply_block(params_l, memory, prefix_context(present))[1]

    def layer(
        self,
        params_l: Params,
        memory: PrmtState,
        x: jax.Array,
        context: SegmentContext,
        last: int | None = None,
    ) -> tuple[PrmtState, jax.Array, None]:
        """One layer of one segment.

        Args:
          params_l: of this layer.
          memory: of this layer, before the segment.
          x: ``[b, t + m, d]``; what stands at the memory is not looked at.
          context: from ``embed``.
          last: compute these last rows of the output only (at least the memory tokens).

        Returns:
          The memory after the segment, and the output.
        """
        size = self.config.num_mem_tokens
        current = self._memory(params_l, memory, x.dtype)
        x = jnp.concatenate([x[:, :-size], current], axis=1)
        x, _ = self.apply_block(params_l, x, context, self._in_front(params_l, current), last)
        rows = jnp.ones(x.shape[:1], bool) if context.write is None else context.write
        left = x[:, -size:].astype(memory.memory.dtype)
        kept = jnp.where(rows[:, None, None], left, memory.memory)
        return PrmtState(kept, memory.written | rows), x, None

    def step(
        self, params: Params, state: PrmtState, segment: Segment
    ) -> tuple[PrmtState, jax.Array]:
        """Read one segment. ``hidden [b, t, d]`` is the last block's output at the tokens."""
        state, x = self._read(params, state, segment, None)
        return state, x[:, : segment.tokens.shape[1]]

    def write(self, params: Params, state: PrmtState, segment: Segment) -> PrmtState:
        """As ``step``, without hidden states: the last layer computes its memory tokens only."""
        return self._read(params, state, segment, self.config.num_mem_tokens)[0]

    def _read(
        self, params: Params, state: PrmtState, segment: Segment, last: int | None
    ) -> tuple[PrmtState, jax.Array]:
        x, context = self.embed(params, segment)

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, PrmtState]:
            params_l, memory = scanned
            memory, x, _ = self.layer(params_l, memory, x, context, last)
            return x, memory

        x, state = run_layers(layer, x, params["layers"], state, last)
        return state, x

    def ask(self, params: Params, state: PrmtState, queries: Segment) -> jax.Array:
        """Hidden states ``[b, q, t, d]`` of queries ``[b, q, t]``, forked from one state."""
        x, context = self.embed_queries(params, queries)
        return self.ask_layers(params["layers"], state, x, context)

    def embed_queries(self, params: Params, queries: Segment) -> tuple[jax.Array, SegmentContext]:
        """Queries ``[b, q, t]`` as the first layer's input ``[b, q, t, d]``; see ``ask``."""
        batch, count, length = queries.tokens.shape
        rows = batch * count
        mask = queries.mask.reshape(rows, length)
        present = jnp.ones((rows, self.config.num_mem_tokens), bool)
        positions = jnp.arange(length, dtype=jnp.int32)[None]
        context = token_context(present, mask, positions)
        x = self.embed_tokens(params, queries.tokens.reshape(rows, length), context.positions)
        return x.reshape(batch, count, length, -1), context

    def ask_layers(
        self, layers: Params, state: PrmtState, x: jax.Array, context: SegmentContext
    ) -> jax.Array:
        """``x [b, q, t, d]`` after stacked ``layers`` that read their memories ``state``."""
        batch, count, length = x.shape[:3]

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, None]:
            params_l, memory = scanned
            own = self._in_front(params_l, self._memory(params_l, memory, x.dtype))
            past = KeyValues(*(jnp.repeat(leaf, count, axis=0) for leaf in own))
            return self.apply_block(params_l, x, context, past, last)[0], None

        x, _ = run_layers(layer, x.reshape(batch * count, length, -1), layers, state)
        return x.reshape(batch, count, length, -1)

    def prefill(
        self, params: Params, state: PrmtState, prompt: Segment, room: int
    ) -> tuple[Cache, jax.Array]:
        """Read ``[memory; prompt]`` at once, with ``room`` places left for what follows.

        Returns:
          The cache, and the hidden state ``[b, d]`` of the last token.
        """
        present = jnp.ones((prompt.tokens.shape[0], self.config.num_mem_tokens), bool)
        context = token_context(present, prompt.mask, prompt_positions(prompt.mask))
        x = self.embed_tokens(params, prompt.tokens, context.positions)

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, KeyValues]:
            params_l, memory = scanned
            past = self._in_front(params_l, self._memory(params_l, memory, x.dtype))
            x, own = self.apply_block(params_l, x, context, past, last)
            return x, jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), past, own)

        x, kv = run_layers(layer, x, params["layers"], state)
        mask = jnp.concatenate([present, prompt.mask], axis=1)
        return filled(kv, mask, context.positions[:, -1] + 1, room), x[:, -1]
