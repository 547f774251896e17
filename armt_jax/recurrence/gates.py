"""Keeping the write gates of ARMT shut on text that holds nothing to remember.

What is trained on a few segments has no reason to close a gate: noise may be written where it does
no harm, over itself, and a gate that is open wide has no gradient that would close it. The little
that such a write moves adds up over 10^5 segments. A gate that is shut moves nothing: the hard gate
is exactly 0 below a logit of -2.4, and a sigmoid at -18 is 1.5e-8, beneath float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from armt_jax.config import ConfigError
from armt_jax.memory.associative import state_dtype
from armt_jax.models import ARMT
from armt_jax.models.protocol import Params, Segment, SegmentModel, State

# Logits below minus this are left alone: where a gate is shut, and the like of a standard deviation
# of its logits on noise beyond, so that rare text stays on this side.
MARGINS = {"hard": 6.0, "sigmoid": 18.0}
# A gate of this much counts as open. A shut hard gate is 0; a sigmoid never is.
OPEN = 1e-3


def open_gates(model: SegmentModel, params: Params, state: State, segments: Segment) -> jax.Array:
    """How far the gates stand open on segments ``[s, b, t]``, each read from ``state``.

    The mean of ``softplus(logit + margin)`` over memory tokens, layers with a memory, and segments
    with a token; 0 where there is none. Nothing is written, so the segments are read side by side.

    Raises:
      ConfigError: a model without associative memories.
    """
    armt = with_gates(model)
    logits = side_by_side(armt, params, state, segments)
    excess = jax.nn.softplus(logits.astype(state_dtype(logits.dtype)) + MARGINS[armt.rule.gate])
    read_at_all = jnp.any(segments.mask, axis=2)
    each = jnp.where(read_at_all, jnp.mean(excess, axis=(1, 3)), 0.0)
    return jnp.sum(each) / jnp.maximum(jnp.sum(read_at_all), 1)


def side_by_side(model: ARMT, params: Params, state: State, segments: Segment) -> jax.Array:
    """Logits ``[s, l, b, m]`` of the gates of the ``l`` layers with a memory, read as above."""
    read = jax.vmap(lambda segment: model.gate_logits(params, state, segment))
    return read(segments)[:, jnp.asarray(model.config.layers_with_memory)]


def with_gates(model: SegmentModel) -> ARMT:
    """``model``, which has write gates.

    Raises:
      ConfigError: it has none.
    """
    if isinstance(model, ARMT):
        return model
    raise ConfigError(
        "curriculum.gate_weight: must be 0 for model.family = "
        f"{model.config.family!r}, which has no write gates"
    )
