"""Long stretches before and behind what is trained on, read without a gradient.

A leak of 1e-5 a segment never shows in a training of 16 segments. A memory that comes out of a long
stretch of other text, or goes through one before it is asked, brings such leaks into the loss at
the cost of reading alone. Starting from such states is Buitrago Ruiz and Gu's state passing (arXiv
2507.02782); what lies behind is read with the gradient of a memory that only keeps: the identity.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.protocol import Params, Segment, SegmentModel, State
from armt_jax.recurrence.run import run_segments


def read_with_passages(
    model: SegmentModel,
    params: Params,
    state: State,
    segments: Segment,
    before: int,
    behind: int,
    **options: Any,
) -> State:
    """The state after ``segments``, of which the first and the last ones give no gradient.

    The value is that of ``run_segments``, up to rounding. The gradient is that of the segments
    between alone: what they start from is a constant, and what is written behind them is a constant
    that is added.

    Args:
      model, params, state, segments: as in ``run_segments``.
      before, behind: how many segments; together fewer than there are.
      **options: of ``run_segments``, for the segments between.
    """
    count = segments.tokens.shape[0]

    def part(start: int, stop: int) -> Segment:
        return jax.tree.map(lambda leaf: leaf[start:stop], segments)

    fixed = lax.stop_gradient(params)
    schedule = {"schedule": options.get("schedule", "sequential"), "need_hidden": False}
    if before:
        state, _ = run_segments(model, fixed, state, part(0, before), **schedule)
        state = lax.stop_gradient(state)
    middle = part(before, count - behind)
    state, _ = run_segments(model, params, state, middle, **{**options, "need_hidden": False})
    if not behind:
        return state
    start = lax.stop_gradient(state)
    after, _ = run_segments(model, fixed, start, part(count - behind, count), **schedule)
    return jax.tree.map(_continued, state, after)


def _continued(leaf: jax.Array, after: jax.Array) -> jax.Array:
    """``after`` in value, ``leaf`` in gradient."""
    after = lax.stop_gradient(after)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return after
    return leaf + (after - lax.stop_gradient(leaf))
