"""``answer``: many queries read from one memory, each forked from the same state."""

from __future__ import annotations

import jax

from armt_jax.models.protocol import Params, Segment, SegmentModel, State


def answer(model: SegmentModel, params: Params, state: State, queries: Segment) -> jax.Array:
    """Logits ``[b, q, t, v]`` of queries ``[b, q, t]``; no query sees another, none is written.

    Equal to reading each query as the last segment of a text of its own.
    """
    return model.readout(params, model.ask(params, state, queries))
