"""Segments with memory tokens on both sides: ``[prefix; tokens; suffix]`` (RMT, arXiv 2207.06881).

The mask is causal over all of it: the tokens see the prefix, the suffix sees the whole segment,
and no token sees the suffix. So the prefix is what is read and the suffix what is written.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.attention import SegmentContext
from armt_jax.models.protocol import Segment


class Layout(NamedTuple):
    """Where everything of a segment stands.

    Attributes:
      rows: ``[b or 1, p + t + m]`` int32, rows of the learned positions (GPT-2).
      context: positions as rotary ones count them, and the mask; all of ``p + t + m``.
    """

    rows: jax.Array
    context: SegmentContext


def segment_layout(config: ModelConfig, segment: Segment, present: jax.Array | None) -> Layout:
    """The layout of ``[prefix; tokens; suffix]``.

    Prefix, tokens and suffix are numbered through. With ``wrap_pos`` the suffix has the last rows
    of the learned positions, behind the ``n_positions`` that the tokens can take.

    Args:
      config: the model's.
      segment: ``[b, t]``. With ``length`` the suffix is numbered as behind a shorter segment.
      present: ``[b, p]`` bool, which memory tokens of the prefix there are; None: all.
    """
    prefix, suffix = config.prefix_positions, config.num_mem_tokens
    batch, length = segment.tokens.shape
    total = prefix + length + suffix
    positions = jnp.arange(total, dtype=jnp.int32)[None]
    is_suffix = jnp.arange(total)[None] >= prefix + length
    if segment.length is not None:
        positions = positions - jnp.where(is_suffix, (length - segment.length)[:, None], 0)
    rows = positions
    if config.wrap_pos:
        wrapped = config.n_positions - length + jnp.arange(total, dtype=jnp.int32)[None]
        rows = jnp.where(is_suffix, wrapped, positions)
    if present is None:
        present = jnp.ones((batch, prefix), bool)
    columns = jnp.concatenate([present, segment.mask, jnp.ones((batch, suffix), bool)], axis=1)
    attend = jnp.tril(jnp.ones((total, total), bool))[None] & columns[:, None, :]
    return Layout(rows, SegmentContext(positions, attend, jnp.any(segment.mask, axis=1)))


def prefix_context(present: jax.Array) -> SegmentContext:
    """The prefix alone, of which ``present [b, p]`` there are."""
    length = present.shape[1]
    attend = jnp.tril(jnp.ones((length, length), bool))[None] & present[:, None, :]
    return SegmentContext(jnp.arange(length, dtype=jnp.int32)[None], attend)


def token_context(present: jax.Array, mask: jax.Array, positions: jax.Array) -> SegmentContext:
    """Tokens ``[b, t]`` that read a prefix ``present [b, p]`` and have no suffix.

    Args:
      present: which memory tokens of the prefix, standing in front, there are.
      mask: of the tokens.
      positions: ``[b or 1, t]`` of the tokens, counted from the end of the prefix.
    """
    length, prefix = mask.shape[1], present.shape[1]
    causal = jnp.tril(jnp.ones((length, prefix + length), bool), k=prefix)
    attend = causal[None] & jnp.concatenate([present, mask], axis=1)[:, None, :]
    return SegmentContext(prefix + positions, attend)
