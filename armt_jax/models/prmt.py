"""Parallel-memory RMT (arXiv 2407.04841, Appendix F.2): every layer reads memory of its own.

A segment is ``[memory; tokens; memory]`` as RMT's, and at each layer's input both copies are
replaced by the layer's memory; in the first segment that is learned tokens of the layer. So nothing
of the copy in front goes to the next layer, and of it only keys and values are computed.

What a layer's memory is in the next segment has two readings:

- ``released``, what the authors' code computes and its checkpoints need. A layer keeps its output
  at the copy behind as a view of the tensor that the layer above then overwrites with its own
  memory. What is left in layer l is the memory that layer l + 1 had read, and only the top layer's
  output is new: a value moves down one layer a segment.
- ``layerwise``, what the paper describes: each layer's own output (``LayerwisePRMT``).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.block_model import BlockModel
from armt_jax.models.cache import Cache, filled, prompt_positions
from armt_jax.models.layers import run_layers, split_top
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
    """PRMT as the authors' code computes it; a ``SegmentModel``.

    Below the top layer nobody looks at the copy of the memory behind the tokens, so that it is in
    the top layer only. ``params["embed"]["memory"]`` is read by nothing: the reference has it, and
    checkpoints go both ways.
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

    def _current(self, params_l: Params, memory: PrmtState) -> jax.Array:
        """What a layer reads: ``[b, m, d]``, in the dtype of the state."""
        learned = params_l["memory"].astype(memory.memory.dtype)[None]
        return jnp.where(memory.written[:, None, None], memory.memory, learned)

    def _in_front(self, params_l: Params, current: jax.Array, dtype: jnp.dtype) -> KeyValues:
        """Keys and values of the copy in front; the rest of its block is not computed."""
        present = jnp.ones(current.shape[:2], bool)
        return self.apply_block(params_l, current.astype(dtype), prefix_context(present))[1]

    def step(
        self, params: Params, state: PrmtState, segment: Segment
    ) -> tuple[PrmtState, jax.Array]:
        """Read one segment. ``hidden [b, t, d]`` is the last block's output at the tokens."""
        state, x = self._read(params, state, segment, None)
        return state, x[:, : segment.tokens.shape[1]]

    def write(self, params: Params, state: PrmtState, segment: Segment) -> PrmtState:
        """As ``step``, without hidden states: the last layer computes its memory tokens only."""
        return self._read(params, state, segment, self.config.num_mem_tokens)[0]

    def _embed(self, params: Params, segment: Segment) -> tuple[jax.Array, SegmentContext]:
        """Tokens ``[b, t, d]``; the context of ``[tokens; memory]`` behind the copy in front."""
        start, length = self.config.prefix_positions, segment.tokens.shape[1]
        rows, context = segment_layout(self.config, segment, None)
        x = self.embed_tokens(params, segment.tokens, rows[:, start : start + length])
        return x, context._replace(
            positions=context.positions[:, start:], attend=context.attend[:, start:]
        )

    def _read(
        self, params: Params, state: PrmtState, segment: Segment, last: int | None
    ) -> tuple[PrmtState, jax.Array]:
        size, length = self.config.num_mem_tokens, segment.tokens.shape[1]
        x, context = self._embed(params, segment)
        of_tokens = context._replace(
            positions=context.positions[:, :length], attend=context.attend[:, :length, :-size]
        )

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, jax.Array]:
            params_l, memory = scanned
            current = self._current(params_l, memory)
            front = self._in_front(params_l, current, x.dtype)
            return self.apply_block(params_l, x, of_tokens, front, last)[0], current

        lower, top = split_top(params["layers"])
        of_lower, of_top = split_top(state)
        x, read = run_layers(layer, x, lower, of_lower)
        current = self._current(top, of_top)
        x = jnp.concatenate([x, current.astype(x.dtype)], axis=1)
        x, _ = self.apply_block(top, x, context, self._in_front(top, current, x.dtype), last)
        # One layer down: what the layer above has read; at the top, what is new.
        left = [*([] if read is None else [read[1:], current[None]]), self._left(state, x)[None]]
        rows = jnp.any(segment.mask, axis=1)
        kept = jnp.where(rows[None, :, None, None], jnp.concatenate(left), state.memory)
        return PrmtState(kept, state.written | rows[None]), x

    def _left(self, state: PrmtState, x: jax.Array) -> jax.Array:
        return x[:, -self.config.num_mem_tokens :].astype(state.memory.dtype)

    def ask(self, params: Params, state: PrmtState, queries: Segment) -> jax.Array:
        """Hidden states ``[b, q, t, d]`` of queries ``[b, q, t]``, forked from one state."""
        x, context = self._embed_queries(params, queries)
        return self._ask_layers(params["layers"], state, x, context)

    def _embed_queries(self, params: Params, queries: Segment) -> tuple[jax.Array, SegmentContext]:
        batch, count, length = queries.tokens.shape
        rows = batch * count
        mask = queries.mask.reshape(rows, length)
        present = jnp.ones((rows, self.config.num_mem_tokens), bool)
        positions = jnp.arange(length, dtype=jnp.int32)[None]
        context = token_context(present, mask, positions)
        x = self.embed_tokens(params, queries.tokens.reshape(rows, length), context.positions)
        return x.reshape(batch, count, length, -1), context

    def _ask_layers(
        self, layers: Params, state: PrmtState, x: jax.Array, context: SegmentContext
    ) -> jax.Array:
        batch, count, length = x.shape[:3]

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, None]:
            params_l, memory = scanned
            own = self._in_front(params_l, self._current(params_l, memory), x.dtype)
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
            past = self._in_front(params_l, self._current(params_l, memory), x.dtype)
            x, own = self.apply_block(params_l, x, context, past, last)
            return x, jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), past, own)

        x, kv = run_layers(layer, x, params["layers"], state)
        mask = jnp.concatenate([present, prompt.mask], axis=1)
        return filled(kv, mask, context.positions[:, -1] + 1, room), x[:, -1]


@dataclasses.dataclass(frozen=True)
class LayerwisePRMT(PRMT):
    """PRMT whose layers keep their own outputs: a ``LayerwiseModel``, and ``AskedByLayer``."""

    def embed(self, params: Params, segment: Segment) -> tuple[jax.Array, SegmentContext]:
        """``[tokens; room for memory]`` ``[b, t + m, d]``, and what the layers must know of it."""
        x, context = self._embed(params, segment)
        return jnp.pad(x, ((0, 0), (0, self.config.num_mem_tokens), (0, 0))), context

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
        current = self._current(params_l, memory)
        x = jnp.concatenate([x[:, : -current.shape[1]], current.astype(x.dtype)], axis=1)
        front = self._in_front(params_l, current, x.dtype)
        x, _ = self.apply_block(params_l, x, context, front, last)
        rows = jnp.ones(x.shape[:1], bool) if context.write is None else context.write
        kept = jnp.where(rows[:, None, None], self._left(memory, x), memory.memory)
        return PrmtState(kept, memory.written | rows), x, None

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

    def embed_queries(self, params: Params, queries: Segment) -> tuple[jax.Array, SegmentContext]:
        """Queries ``[b, q, t]`` as the first layer's input ``[b, q, t, d]``; see ``ask``."""
        return self._embed_queries(params, queries)

    def ask_layers(
        self, layers: Params, state: PrmtState, x: jax.Array, context: SegmentContext
    ) -> jax.Array:
        """``x [b, q, t, d]`` after stacked ``layers`` that read their memories ``state``."""
        return self._ask_layers(layers, state, x, context)


def create_prmt(config: ModelConfig) -> PRMT:
    """The one of the two that ``config.memory_passing`` names."""
    return (LayerwisePRMT if config.memory_passing == "layerwise" else PRMT)(config)
