"""Reading segments one after the other: the schedule every model has."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from armt_jax.models.protocol import Params, Segment, SegmentModel, State


def run_sequential(
    model: SegmentModel,
    params: Params,
    state: State,
    segments: Segment,
    *,
    remat: bool = False,
    need_hidden: bool = True,
) -> tuple[State, jax.Array | None]:
    """``lax.scan`` of ``model.step`` over ``segments`` with leaves ``[s, b, t]``.

    Args:
      model: any segment model.
      params: its parameters.
      state: before the first segment.
      segments: stacked along axis 0.
      remat: keep only the states between segments for the backward pass.
      need_hidden: False where only the final state matters: the cheaper ``model.write`` is used.

    Returns:
      The state after the last segment; hidden states ``[s, b, t, d]``, or None.
    """

    def body(state: State, segment: Any) -> tuple[State, jax.Array | None]:
        if need_hidden:
            return model.step(params, state, segment)
        return model.write(params, state, segment), None

    return lax.scan(jax.checkpoint(body) if remat else body, state, segments)
