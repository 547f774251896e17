"""Recurrent Memory Transformer (arXiv 2207.06881): memory goes from the top layer to the bottom.

A segment is ``[memory; tokens; memory]``, both copies what the segment before left. The last
block's output at the copy behind, after the final layer norm, is the memory of the next segment.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.memory.associative import state_dtype
from armt_jax.models import backbones
from armt_jax.models.attention import KeyValues
from armt_jax.models.block_model import BlockModel
from armt_jax.models.cache import Cache, filled, prompt_positions
from armt_jax.models.layers import run_layers
from armt_jax.models.memory_tokens import prefix_context, segment_layout, token_context
from armt_jax.models.precision import at_model_precision
from armt_jax.models.protocol import Params, Segment


class RmtState(NamedTuple):
    """What a text has left so far.

    Attributes:
      memory: ``[b, m, d]`` float32 (or wider), zeros before the first segment.
      written: ``[b]`` bool; where False, the learned memory tokens are the memory.
    """

    memory: jax.Array
    written: jax.Array


@dataclasses.dataclass(frozen=True)
class RMT(BlockModel):
    """RMT as a ``SegmentModel``."""

    def init_state(self, batch_size: int, dtype: jax.typing.DTypeLike | None = None) -> RmtState:
        """Nothing read yet, by ``batch_size`` texts."""
        return RmtState(self._blank(batch_size, dtype), jnp.zeros((batch_size,), bool))

    def _blank(self, batch_size: int, dtype: jax.typing.DTypeLike | None) -> jax.Array:
        return blank_memory(self.config, (batch_size,), dtype)

    def memory(self, params: Params, state: Any) -> jax.Array:
        """The current memory ``[b, m, d]``, in the dtype of activations."""
        learned = params["embed"]["memory"].astype(state.memory.dtype)[None]
        memory = jnp.where(state.written[:, None, None], state.memory, learned)
        return memory.astype(self.compute_dtype(params))

    def prefix(self, params: Params, state: Any) -> tuple[jax.Array, jax.Array]:
        """What stands before the tokens: ``[b, p, d]``, and which of it there is, ``[b, p]``."""
        memory = self.memory(params, state)
        return memory, jnp.ones(memory.shape[:2], bool)

    def carried_on(self, state: Any, memory: jax.Array, rows: jax.Array) -> Any:
        """The state after a segment that left ``memory [b, m, d]`` in ``rows [b]``."""
        kept = jnp.where(rows[:, None, None], memory.astype(state.memory.dtype), state.memory)
        return RmtState(kept, state.written | rows)

    def step(self, params: Params, state: Any, segment: Segment) -> tuple[Any, jax.Array]:
        """Read one segment. ``hidden [b, t, d]`` is the last block's output at the tokens."""
        state, x = self._read(params, state, segment, None)
        start = self.config.prefix_positions
        return state, x[:, start : start + segment.tokens.shape[1]]

    def write(self, params: Params, state: Any, segment: Segment) -> Any:
        """As ``step``, without hidden states: the last layer computes its memory tokens only."""
        return self._read(params, state, segment, self.config.num_mem_tokens)[0]

    def _read(
        self, params: Params, state: Any, segment: Segment, last: int | None
    ) -> tuple[Any, jax.Array]:
        cfg = self.config
        prefix, present = self.prefix(params, state)
        layout = segment_layout(cfg, segment, present)
        tokens = jnp.take(self._embedding(params), segment.tokens, axis=0).astype(prefix.dtype)
        x = jnp.concatenate([prefix, tokens, self.memory(params, state)], axis=1)
        x = self._with_positions(params, x, layout.rows)

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, None]:
            return self.apply_block(scanned[0], x, layout.context, None, last)[0], None

        x, _ = run_layers(layer, x, params["layers"], None, last)
        return self._carried_on(params, state, x, jnp.any(segment.mask, axis=1)), x

    @at_model_precision
    def _carried_on(self, params: Params, state: Any, x: jax.Array, rows: jax.Array) -> Any:
        top = x[:, -self.config.num_mem_tokens :]
        return self.carried_on(state, backbones.final_norm(self.config, params, top), rows)

    def _embedding(self, params: Params) -> jax.Array:
        return params["embed"][backbones.BACKBONES[self.config.backbone].embedding]

    def _with_positions(self, params: Params, x: jax.Array, rows: jax.Array) -> jax.Array:
        return backbones.add_positions(self.config, params["embed"], x, rows).astype(x.dtype)

    def _with_own_positions(self, params: Params, prefix: jax.Array) -> jax.Array:
        rows = jnp.arange(prefix.shape[1], dtype=jnp.int32)[None]
        return self._with_positions(params, prefix, rows)

    def ask(self, params: Params, state: Any, queries: Segment) -> jax.Array:
        """Hidden states ``[b, q, t, d]`` of queries ``[b, q, t]``, forked from one state.

        The prefix sees no token, so that it goes through the layers once for all queries of a
        text. Nothing is written, so there is no suffix.
        """
        batch, count, length = queries.tokens.shape
        prefix, present = self.prefix(params, state)
        in_prefix = prefix_context(present)
        positions = jnp.arange(length, dtype=jnp.int32)[None]
        mask = queries.mask.reshape(batch * count, length)
        context = token_context(jnp.repeat(present, count, axis=0), mask, positions)
        tokens = queries.tokens.reshape(batch * count, length)

        def layer(carry: Any, scanned: Any, last: int | None) -> tuple[Any, None]:
            prefix, x = carry
            prefix, own = self.apply_block(scanned[0], prefix, in_prefix)
            past = KeyValues(*(jnp.repeat(leaf, count, axis=0) for leaf in own))
            return (prefix, self.apply_block(scanned[0], x, context, past, last)[0]), None

        x = self.embed_tokens(params, tokens, context.positions)
        start = (self._with_own_positions(params, prefix), x)
        (_, x), _ = run_layers(layer, start, params["layers"], None)
        return x.reshape(batch, count, length, -1)

    def prefill(
        self, params: Params, state: Any, prompt: Segment, room: int
    ) -> tuple[Cache, jax.Array]:
        """Read ``[prefix; prompt]`` at once, with ``room`` places left for what follows.

        Returns:
          The cache, and the hidden state ``[b, d]`` of the last token.
        """
        prefix, present = self.prefix(params, state)
        own, inside = prompt_positions(prompt.mask), prefix_context(present)
        after = token_context(present, prompt.mask, own)
        x = self.embed_tokens(params, prompt.tokens, after.positions)
        x = jnp.concatenate([self._with_own_positions(params, prefix), x], axis=1)
        batch, length = prompt.tokens.shape
        first = jnp.broadcast_to(inside.positions, present.shape)
        blind = jnp.zeros((batch, present.shape[1], length), bool)
        context = after._replace(
            positions=jnp.concatenate([first, after.positions], axis=1),
            attend=jnp.concatenate(
                [jnp.concatenate([inside.attend, blind], axis=2), after.attend], axis=1
            ),
        )
        x, kv = self.reading_layers(params, state, x, context, None)
        mask = jnp.concatenate([present, prompt.mask], axis=1)
        return filled(kv, mask, after.positions[:, -1] + 1, room), x[:, -1]


def blank_memory(
    config: ModelConfig, shape: tuple[int, ...], dtype: jax.typing.DTypeLike | None
) -> jax.Array:
    """Zeros ``[*shape, m, d]``, never narrower than float32."""
    dtype = state_dtype(dtype or config.dtype or jnp.result_type(float))
    return jnp.zeros((*shape, config.num_mem_tokens, config.d_model), dtype)
