"""RMT-R: an RMT whose memory looks back at all earlier memory states (arXiv 2402.10790).

A segment is ``[retrieved; memory; tokens; memory]``. The retrieved tokens are cross-attention, with
one head, from the current memory ``M`` to the tokens of the states ``P`` that were the memory
before:

    R = softmax(M W_Q (P W_K)^T / sqrt(d)) P W_V

``exact`` attends to every kept state; ``top1`` to the tokens of one state alone, the one that gets
the largest weight, all memory tokens together. The states are a ring of static length: the oldest
makes room. Before there is an earlier state the retrieved tokens are masked: the model is an RMT.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.precision import at_model_precision
from armt_jax.models.protocol import Params
from armt_jax.models.rmt import RMT, blank_memory


class RmtRState(NamedTuple):
    """What a text has left so far.

    Attributes:
      memory: ``[b, m, d]`` float32 (or wider), the current one.
      past: ``[b, n, m, d]``, memories before it; state i, counted from 0, is in place ``i % n``.
      read: ``[b]`` int32, segments that have been read.
    """

    memory: jax.Array
    past: jax.Array
    read: jax.Array

    @property
    def written(self) -> jax.Array:
        """``[b]`` bool, whether ``memory`` was left by a segment."""
        return self.read > 0


@dataclasses.dataclass(frozen=True)
class RMTRetrieval(RMT):
    """RMT-R as a ``SegmentModel``."""

    def init(self, rng: jax.Array, dtype: jax.typing.DTypeLike | None = None) -> Params:
        """As RMT's, with ``W_Q, W_K, W_V`` of the retrieval."""
        rmt_rng, own_rng = jax.random.split(rng)
        params = super().init(rmt_rng, dtype)
        width, scale = self.config.d_model, self.config.initializer_range
        dtype = params["embed"]["memory"].dtype
        keys = jax.random.split(own_rng, 3)
        names = ("query", "key", "value")
        params["retrieval"] = {
            name: {"kernel": scale * jax.random.normal(key, (width, width), dtype)}
            for name, key in zip(names, keys, strict=True)
        }
        return params

    def init_state(self, batch_size: int, dtype: jax.typing.DTypeLike | None = None) -> RmtRState:
        """Nothing read yet, by ``batch_size`` texts."""
        memory = self._blank(batch_size, dtype)
        past = blank_memory(self.config, (batch_size, self.config.retrieval_states), dtype)
        return RmtRState(memory, past, jnp.zeros((batch_size,), jnp.int32))

    def prefix(self, params: Params, state: RmtRState) -> tuple[jax.Array, jax.Array]:
        """``[retrieved; memory]``; what is retrieved is there from the third segment on."""
        memory = self.memory(params, state)
        retrieved = self.retrieve(params["retrieval"], state, memory)
        there = jnp.broadcast_to((state.read > 1)[:, None], memory.shape[:2])
        present = jnp.concatenate([there, jnp.ones_like(there)], axis=1)
        return jnp.concatenate([retrieved, memory], axis=1), present

    @at_model_precision
    def retrieve(self, params: Params, state: RmtRState, memory: jax.Array) -> jax.Array:
        """``R [b, m, d]`` of ``memory [b, m, d]``; zeros where there is no earlier state.

        ``(M W_Q)(P W_K)^T`` is computed as ``(M W_Q W_K^T) P^T`` and ``a (P W_V)`` as
        ``(a P) W_V``: the matrices meet m rows instead of all states'.
        """
        dtype = memory.dtype
        w_q, w_k, w_v = (params[name]["kernel"].astype(dtype) for name in ("query", "key", "value"))
        past, wide = state.past.astype(dtype), jnp.promote_types(dtype, jnp.float32)
        sought = (memory @ w_q) @ w_k.T
        scores = jnp.einsum("bmd,bnkd->bmnk", sought, past, preferred_element_type=wide)
        scores = scores / memory.shape[-1] ** 0.5
        number = jnp.arange(past.shape[1])[None]
        kept = number < (state.read - 1)[:, None]
        weights = _softmax(scores, kept)
        if self.config.retrieval == "top1":
            best = jnp.argmax(jnp.sum(weights, axis=(1, 3)), axis=1)
            weights = _softmax(scores, kept & (number == best[:, None]))
        found = jnp.einsum("bmnk,bnkd->bmd", weights.astype(dtype), past)
        return found @ w_v

    def carried_on(self, state: RmtRState, memory: jax.Array, rows: jax.Array) -> RmtRState:
        """The state after a segment: what was the memory becomes a past state."""
        place = (state.read - 1) % self.config.retrieval_states
        number = jnp.arange(self.config.retrieval_states)[None]
        replaced = (number == place[:, None]) & (rows & (state.read > 0))[:, None]
        past = jnp.where(replaced[:, :, None, None], state.memory[:, None], state.past)
        kept = jnp.where(rows[:, None, None], memory.astype(state.memory.dtype), state.memory)
        return RmtRState(kept, past, state.read + rows)


def _softmax(scores: jax.Array, kept: jax.Array) -> jax.Array:
    """Over the tokens of the ``kept [b, n]`` states of ``scores [b, m, n, k]``; 0 for none."""
    seen = kept[:, None, :, None]
    lowest = jnp.finfo(scores.dtype).min
    largest = jnp.max(jnp.where(seen, scores, lowest), axis=(2, 3), keepdims=True)
    largest = lax.stop_gradient(largest)
    weights = jnp.where(seen, jnp.exp(jnp.where(seen, scores - largest, 0.0)), 0.0)
    return weights / jnp.maximum(jnp.sum(weights, axis=(2, 3), keepdims=True), 1e-30)
