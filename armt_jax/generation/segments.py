"""Text without end: a segment that is full is written to the memory, and the next one begins.

So the text has the segments that it would have if it were read as a whole, and every token comes
from the memory that reading gives. A full segment is read once more, memory tokens behind it, as
``run_segments`` reads it: what is remembered is what re-reading remembers, for one parallel
reading of a segment beside as many single steps as it has tokens.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.generation.decoding import Decoded, How, Progress, decode
from armt_jax.models.protocol import Params, Segment, SegmentModel, State


def decode_in_segments(
    model: SegmentModel,
    params: Params,
    state: State,
    prompt: Segment,
    rng: jax.Array,
    *,
    segment_size: int,
    new: int,
    how: How,
) -> Decoded:
    """As ``decode`` from the start, of a ``prompt`` of at most ``segment_size`` tokens.

    The prompt's segment is filled up with what follows. The last token of a full segment predicts
    the first one of the next.
    """
    progress = Progress.start(prompt.tokens.shape[0])

    def run(state: State, piece: Segment, progress: Progress, count: int) -> Decoded:
        return decode(model, params, state, piece, rng, progress, new=count, how=how)

    room = segment_size - prompt.tokens.shape[1] + 1
    first = run(state, prompt, progress, min(new, room))
    if new <= room:
        return first
    state = model.write(params, state, filled(prompt, first.ids))
    between, rest = divmod(new - room - 1, segment_size)

    def whole(carry: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array | None]]:
        state, token, progress = carry
        found = run(state, opening(token), progress, segment_size)
        state = model.write(params, state, filled(opening(token), found.ids))
        return (state, found.ids[:, -1], found.progress), (found.ids, found.scores)

    def ended(carry: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array | None]]:
        shape = (prompt.tokens.shape[0], segment_size)
        logits = first.scores
        if logits is not None:
            logits = jnp.zeros((*shape, logits.shape[-1]), logits.dtype)
        return carry, (jnp.full(shape, how.fill, jnp.int32), logits)

    def segment(carry: Any, _: None) -> tuple[Any, tuple[jax.Array, jax.Array | None]]:
        return lax.cond(jnp.all(carry[2].done), ended, whole, carry, None)

    carry = (state, first.ids[:, -1], first.progress)
    (state, token, progress), middle = lax.scan(segment, carry, None, length=between)
    last = run(state, opening(token), progress, rest + 1)
    middle = jax.tree.map(lambda x: _joined(jnp.swapaxes(x, 0, 1)), middle)
    ids, scores = jax.tree.map(
        lambda *parts: jnp.concatenate(parts, axis=1),
        (first.ids, first.scores),
        middle,
        (last.ids, last.scores),
    )
    return Decoded(ids, scores, last.progress)


def _joined(x: jax.Array) -> jax.Array:
    """``[b, segments * size, ...]`` of ``[b, segments, size, ...]``."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


def opening(token: jax.Array) -> Segment:
    """A segment's first token ``[b]``."""
    return Segment(token[:, None], jnp.ones((token.shape[0], 1), bool))


def filled(prompt: Segment, ids: jax.Array) -> Segment:
    """``prompt`` and the ids behind it but the last, which is the next segment's.

    Padding goes behind the tokens: it took no position while they were generated.
    """
    tokens = jnp.concatenate([prompt.tokens, ids[:, :-1]], axis=1)
    mask = jnp.concatenate([prompt.mask, jnp.ones(ids[:, :-1].shape, bool)], axis=1)
    order = jnp.argsort(~mask, axis=1, stable=True)
    tokens, mask = (jnp.take_along_axis(x, order, axis=1) for x in (tokens, mask))
    return Segment(tokens, mask, jnp.sum(mask, axis=1, dtype=jnp.int32))
