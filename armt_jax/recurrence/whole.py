"""All segments as one, for models to which segments are nothing: no scan, one attention."""

from __future__ import annotations

import jax

from armt_jax.models.protocol import Params, Segment, SegmentModel, State


def run_whole(
    model: SegmentModel, params: Params, state: State, segments: Segment, *, need_hidden: bool
) -> tuple[State, jax.Array | None]:
    """Read ``segments [s, b, t]`` as one of ``s t`` tokens; see ``run_segments``.

    What is kept for a backward pass is the activations of the text, and its cache once instead of
    once a segment. The scores of all tokens are computed at a time, which grows with the square of
    the text.
    """
    count, batch, length = segments.tokens.shape

    def join(leaf: jax.Array) -> jax.Array:
        return leaf.swapaxes(0, 1).reshape(batch, count * length)

    text = Segment(join(segments.tokens), join(segments.mask))
    if not need_hidden:
        return model.write(params, state, text), None
    state, hidden = model.step(params, state, text)
    return state, hidden.reshape(batch, count, length, -1).swapaxes(0, 1)
