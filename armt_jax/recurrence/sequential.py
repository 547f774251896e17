"""Reading segments one after the other: the schedule every model has."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ConfigError
from armt_jax.models.block_model import BlockModel
from armt_jax.models.layers import apart_if_few
from armt_jax.models.protocol import Params, Segment, SegmentModel, State
from armt_jax.recurrence.rematerialisation import remat_scan
from armt_jax.recurrence.truncation import goes_on, gradient_if


def run_sequential(
    model: SegmentModel,
    params: Params,
    state: State,
    segments: Segment,
    *,
    reset: jax.Array | None = None,
    remat: str = "none",
    bptt: int = 0,
    need_hidden: bool = True,
) -> tuple[State, jax.Array | None]:
    """``lax.scan`` of ``model.step`` over ``segments`` with leaves ``[s, b, t]``.

    Args:
      model: any segment model.
      params: its parameters.
      state: before the first segment.
      segments: stacked along axis 0.
      reset: ``[s, b]`` bool, the rows that forget everything before a segment; None: no row does.
      remat: what is kept for the backward pass, see ``remat_scan``.
      bptt: gradients end where a window of so many segments begins; 0: nowhere.
      need_hidden: False where only the final state matters: the cheaper ``model.write`` is used.

    Returns:
      The state after the last segment; hidden states ``[s, b, t, d]``, or None.
    """
    if isinstance(model, BlockModel):
        # A stack would be cut in every segment, and its gradient put together again.
        params = apart_if_few(params)

    def body(state: State, scanned: Any) -> tuple[State, jax.Array | None]:
        segment, rows, live = scanned
        if live is not None:
            state = gradient_if(live, state)
        if rows is not None:
            state = reset_rows(model, state, rows)
        if need_hidden:
            return model.step(params, state, segment)
        return model.write(params, state, segment), None

    live = goes_on(segments.tokens.shape[0], bptt)
    return remat_scan(body, state, (segments, reset, live), remat=remat)


def reset_rows(model: SegmentModel, state: State, rows: jax.Array) -> State:
    """``state`` with the rows ``[b]`` bool as ``model.init_state`` gives them.

    Raises:
      ConfigError: a state with more in it than ``init_state`` gives, as a sliding window.
    """
    batch = rows.shape[0]
    empty = model.init_state(batch)
    if jax.tree.structure(empty) != jax.tree.structure(state):
        raise ConfigError(
            "reset: must be None with a sliding window, whose position all rows share"
        )
    # A state for one text more shows which axis of a leaf is the batch.
    wider = jax.eval_shape(lambda: model.init_state(batch + 1))

    def choose(leaf: jax.Array, empty: jax.Array, wider: jax.ShapeDtypeStruct) -> jax.Array:
        sizes = zip(empty.shape, wider.shape, strict=True)
        axis = next(axis for axis, (size, other) in enumerate(sizes) if size != other)
        shape = [batch if i == axis else 1 for i in range(leaf.ndim)]
        return jnp.where(rows.reshape(shape), empty.astype(leaf.dtype), leaf)

    return jax.tree.map(choose, state, empty, wider)
