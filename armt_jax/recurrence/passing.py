"""Long stretches before and behind what is trained on, read without a gradient.

A leak of 1e-5 a segment never shows in a training of 16 segments. A memory that comes out of a long
stretch of other text, or goes through one before it is asked, brings such leaks into the loss at
the cost of reading alone. Starting from such states is Buitrago Ruiz and Gu's state passing (arXiv
2507.02782); what lies behind is read with the gradient of a memory that only keeps: the identity.

What the stretch behind changes in the memory can be a loss of its own (``drift``): nothing is asked
about that text, so the best a memory can do is to stay as it is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.models.protocol import Params, Segment, SegmentModel, State
from armt_jax.recurrence.run import run_segments

_SMOOTH = 1e-5
_TINY = 1e-12


def read_with_passages(
    model: SegmentModel,
    params: Params,
    state: State,
    segments: Segment,
    before: int,
    behind: int,
    *,
    need_drift: bool = False,
    **options: Any,
) -> tuple[State, jax.Array]:
    """The state after ``segments``, of which the first and the last ones give no gradient.

    The value is that of ``run_segments``, up to rounding. The gradient is that of the segments
    between alone: what they start from is a constant, and what is written behind them is a constant
    that is added.

    Args:
      model, params, state, segments: as in ``run_segments``.
      before, behind: how many segments; together fewer than there are.
      need_drift: whether the drift is wanted; reading the stretch behind then has a gradient too,
        but by way of the drift only.
      **options: of ``run_segments``, for the segments between.

    Returns:
      The state, and its drift: the change that the last ``behind`` segments make, as a share of the
      state's size, a mean over layers and texts; 0 where it is not wanted.
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
        return state, jnp.zeros(())
    start, last = lax.stop_gradient(state), part(count - behind, count)
    if need_drift:
        options = {**options, "bptt": 0, "need_hidden": False}
        after, _ = run_segments(model, params, start, last, **options)
        drift = _drift(start, after)
    else:
        after, _ = run_segments(model, fixed, start, last, **schedule)
        drift = jnp.zeros(())
    return jax.tree.map(_continued, state, after), drift


def _drift(start: State, after: State) -> jax.Array:
    changes = []
    for old, new in zip(jax.tree.leaves(start), jax.tree.leaves(after), strict=True):
        if old.ndim < 3 or old.size == 0:  # a mark of each layer and text, not a memory
            continue
        axes = tuple(range(2, old.ndim))  # of [l, b, ...]
        size = lax.stop_gradient(jnp.mean(jnp.sum(old**2, axes))) + _TINY
        # The norm and not its square, so that small writes are not let off: its gradient does not
        # vanish with them. It is smooth below a share of _SMOOTH.
        square = jnp.sum((new - old) ** 2, axes) / size
        changes.append(jnp.mean(jnp.sqrt(square + _SMOOTH**2) - _SMOOTH))
    return jnp.mean(jnp.stack(changes))


def _continued(leaf: jax.Array, after: jax.Array) -> jax.Array:
    """``after`` in value, ``leaf`` in gradient."""
    after = lax.stop_gradient(after)
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return after
    return leaf + (after - lax.stop_gradient(leaf))
