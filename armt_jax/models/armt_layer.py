"""One layer of ARMT: recall, block, write (arXiv 2407.04841, Equations 1-4)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ConfigError
from armt_jax.memory import associative
from armt_jax.memory.feature_maps import feature_dim
from armt_jax.memory.rules import PRESETS, MemoryRule
from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.block_model import BlockModel
from armt_jax.models.precision import at_model_precision
from armt_jax.models.projections import MemoryProjections
from armt_jax.models.protocol import Params


@dataclasses.dataclass(frozen=True)
class ArmtLayer(BlockModel):
    """What a layer computes; all layers are alike, and ``ARMT`` stacks them."""

    def __post_init__(self) -> None:
        if self.config.num_mem_tokens < 1:
            raise ConfigError("model.num_mem_tokens = 0: ARMT writes from memory tokens, needs 1")

    @property
    def rule(self) -> MemoryRule:
        """The memory rule."""
        return PRESETS[self.config.rule]

    @property
    def features(self) -> int:
        """Number of features ``k``: rows of ``A``."""
        return feature_dim(self.rule.feature_map, self.config.d_mem, self.config.nu)

    @at_model_precision
    def query(self, params_l: Params, x: jax.Array) -> jax.Array:
        """``W_Q x``: ``[b, n, d] -> [b, n, d_mem]``."""
        projections = MemoryProjections(self.config)
        return jnp.asarray(projections.apply({"params": params_l["memory"]}, x, method="query"))

    @at_model_precision
    def key_value_gate(
        self, params_l: Params, m: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Of memory tokens ``m [b, m, d]``: ``W_K m``, ``W_V m`` and ``beta`` (Eq. 1)."""
        k, v, logits = self._to_write(params_l, m)
        return k, v, associative.gate(self.rule, logits)

    @at_model_precision
    def gate_logits_of(self, params_l: Params, m: jax.Array) -> jax.Array:
        """What the write gates of memory tokens ``m [b, m, d]`` are made of: ``[b, m]``."""
        return self._to_write(params_l, m)[2]

    def _to_write(self, params_l: Params, m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """``W_K m``, ``W_V m`` and the gate's logits."""
        projections = MemoryProjections(self.config)
        out: Any = projections.apply({"params": params_l["memory"]}, m, method="write")
        return out

    @at_model_precision
    def recall(self, params_l: Params, memory: associative.MemoryState, x: jax.Array) -> jax.Array:
        """``x + y``: positions ``x [b, n, d]`` with what they recall added (Eq. 4)."""
        phi_q = associative.features(self.rule, self.query(params_l, x), self.config.nu)
        return x + associative.recall(self.rule, memory, phi_q).astype(x.dtype)

    @at_model_precision
    def layer(
        self,
        params_l: Params,
        memory: associative.MemoryState,
        x: jax.Array,
        context: SegmentContext,
        past: KeyValues | None = None,
        last: int | None = None,
    ) -> tuple[associative.MemoryState, jax.Array, KeyValues]:
        """Recall, block, write: one layer of one segment.

        Args:
          params_l: of this layer.
          memory: of this layer, before the segment.
          x: ``[b, t + m, d]``, memory tokens last.
          context: from ``embed``.
          past: keys and values of the window.
          last: compute these last rows of the output only (at least the memory tokens).

        Returns:
          The memory after the segment, the output, and the segment's own keys and values.
        """
        x = self.recall(params_l, memory, x)
        x, own = self.apply_block(params_l, x, context, past, last)
        phi_k, change = self.memory_change(params_l, memory, x, context.write)
        return associative.apply_write(memory, phi_k, change, context.write), x, own

    def memory_change(
        self,
        params_l: Params,
        memory: associative.MemoryState,
        x: jax.Array,
        write: jax.Array | None,
    ) -> tuple[jax.Array, associative.MemoryWrite]:
        """What a segment writes (Eqs. 1-3), for ``associative.apply_write``.

        Args:
          params_l: of this layer.
          memory: of this layer, before the segment.
          x: ``[b, n, d]``, the block's output, memory tokens last.
          write: ``[b]`` bool; where False nothing is written. None: everywhere.

        Returns:
          Features of the keys ``[b, m, k]``, and the change.
        """
        k, v, beta = self.key_value_gate(params_l, x[:, -self.config.num_mem_tokens :])
        phi_k = associative.features(self.rule, k, self.config.nu)
        return phi_k, associative.change(self.rule, memory, phi_k, v, beta, write)
