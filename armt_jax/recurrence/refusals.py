"""Why a model, its state or a text cannot be read by a schedule."""

from __future__ import annotations

import jax

from armt_jax.models.armt import ARMT
from armt_jax.models.protocol import (
    SeamlessModel,
    Segment,
    SegmentModel,
    State,
    why_not_layerwise,
)


def why_not(
    schedule: str,
    model: SegmentModel,
    state: State,
    segments: Segment,
    reset: jax.Array | None,
    remat: str,
    bptt: int,
) -> str | None:
    """The reason, in one line, why ``schedule`` cannot be; None if it can.

    Arguments as in ``run_segments``.
    """
    if schedule in ("diagonal", "pipeline"):
        return why_not_layerwise(model, state)
    if schedule == "chunked":
        return _why_not_chunked(model, state, segments, reset)
    if schedule == "whole":
        return _why_not_whole(model, segments, reset, remat, bptt)
    return None


def _why_not_chunked(
    model: SegmentModel, state: State, segments: Segment, reset: jax.Array | None
) -> str | None:
    if not isinstance(model, ARMT) or state.window is not None:
        return "needs a memory of low-rank updates (ARMT without sliding window)"
    if reset is not None:
        return "reads a chunk from one memory, so reset must be None"
    if segments.length is not None:
        return "needs segments of one length, so Segment.length must be None"
    return None


def _why_not_whole(
    model: SegmentModel, segments: Segment, reset: jax.Array | None, remat: str, bptt: int
) -> str | None:
    if not isinstance(model, SeamlessModel):
        name = type(model).__name__
        return f"needs a model to which segments are nothing; {name} has a memory for each"
    if reset is not None:
        return "reads all segments as one, so reset must be None"
    if segments.length is not None:
        return "reads all segments as one, so Segment.length must be None"
    if remat != "none":
        return "reads all segments as one, so remat must be 'none'"
    if bptt:
        return "reads all segments as one, so bptt must be 0"
    return None
