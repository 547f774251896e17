"""One segment continued token by token; the memory is read and never written.

The segment has no memory tokens behind it while it is continued. Its keys and values are cached
(``CachedModel``); other models go on by steps of one token.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.generation.sampling import GREEDY, Sampling, sample_token
from armt_jax.models.protocol import CachedModel, Params, Segment, SegmentModel, State


class How(NamedTuple):
    """How texts are continued; hashable, so that it can be static.

    Attributes:
      sampling: how a token is chosen.
      stop_token: ends a text, and fills what is left of its row; None: nothing does.
      scores: whether the logits of all steps are kept.
    """

    sampling: Sampling = GREEDY
    stop_token: int | None = None
    scores: bool = True

    @property
    def fill(self) -> int:
        """What stands behind the end of a text."""
        return 0 if self.stop_token is None else self.stop_token


class Progress(NamedTuple):
    """How far a generation is.

    Attributes:
      index: int32 scalar, tokens that each row has got: the number of the next one's key.
      done: ``[b]`` bool, the rows that have ended.
    """

    index: jax.Array
    done: jax.Array

    @classmethod
    def start(cls, batch: int) -> Progress:
        """Nothing yet."""
        return cls(jnp.zeros((), jnp.int32), jnp.zeros((batch,), bool))


class Decoded(NamedTuple):
    """What ``decode`` adds.

    Attributes:
      ids: ``[b, new]`` int32.
      scores: ``[b, new, v]``, the logits of every step, 0 behind the end of all rows; None where
        nobody wants them.
      progress: after it.
    """

    ids: jax.Array
    scores: jax.Array | None
    progress: Progress


class _Loop(NamedTuple):
    step: jax.Array
    token: jax.Array
    done: jax.Array
    ids: jax.Array
    scores: jax.Array | None
    cache: Any


def decode(
    model: SegmentModel,
    params: Params,
    state: State,
    prompt: Segment,
    rng: jax.Array,
    progress: Progress,
    *,
    new: int,
    how: How,
) -> Decoded:
    """``new`` tokens behind a segment's first ones, ``prompt [b, t]``, read with ``state``."""
    batch = prompt.tokens.shape[0]
    cache, logits = begin(model, params, state, prompt, new)

    def record(
        step: jax.Array,
        token: jax.Array,
        logits: jax.Array,
        ids: jax.Array,
        scores: jax.Array | None,
    ) -> tuple[jax.Array, jax.Array | None]:
        if scores is not None:
            scores = lax.dynamic_update_index_in_dim(scores, logits, step, 1)
        return lax.dynamic_update_index_in_dim(ids, token, step, 1), scores

    def body(loop: _Loop) -> _Loop:
        cache, logits = follow(model, params, state, loop.cache, loop.token)
        token, (_, done) = choose(rng, Progress(progress.index + loop.step, loop.done), logits, how)
        ids, scores = record(loop.step, token, logits, loop.ids, loop.scores)
        return _Loop(loop.step + 1, token, done, ids, scores, cache)

    first = jnp.zeros((), jnp.int32)
    ids = jnp.full((batch, new), how.fill, jnp.int32)
    scores = jnp.zeros((batch, new, logits.shape[-1]), logits.dtype) if how.scores else None
    token, (_, done) = choose(rng, progress, logits, how)
    kept = jnp.where(jnp.all(progress.done), 0, logits)
    ids, scores = record(first, token, kept, ids, scores)
    going = lambda loop: (loop.step < new) & ~jnp.all(loop.done)  # noqa: E731
    loop = lax.while_loop(going, body, _Loop(first + 1, token, done, ids, scores, cache))
    return Decoded(loop.ids, loop.scores, Progress(progress.index + new, loop.done))


def choose(
    rng: jax.Array, progress: Progress, logits: jax.Array, how: How
) -> tuple[jax.Array, Progress]:
    """The next token ``[b]`` of every row, from its ``logits [b, v]``; the progress after it."""
    key = jax.random.fold_in(rng, progress.index)
    token = jnp.where(progress.done, how.fill, sample_token(logits, key, how.sampling))
    done = progress.done
    if how.stop_token is not None:
        done |= token == how.stop_token
    return token, Progress(progress.index + 1, done)


def begin(
    model: SegmentModel, params: Params, state: State, prompt: Segment, room: int
) -> tuple[Any, jax.Array]:
    """What a segment's first tokens leave for ``follow``, and the logits ``[b, v]`` behind them.

    There is room for so many tokens more.
    """
    if isinstance(model, CachedModel):
        cache, last = model.prefill(params, state, prompt, room)
    else:
        cache, hidden = model.step(params, state, prompt)
        last = hidden[:, -1]
    return cache, model.readout(params, last)


def follow(
    model: SegmentModel, params: Params, state: State, cache: Any, token: jax.Array
) -> tuple[Any, jax.Array]:
    """One more token ``[b]``, and the logits ``[b, v]`` behind it."""
    if isinstance(model, CachedModel):
        cache, last = model.decode(params, state, cache, token)
    else:
        one = Segment(token[:, None], jnp.ones((token.shape[0], 1), bool))
        cache, hidden = model.step(params, cache, one)
        last = hidden[:, 0]
    return cache, model.readout(params, last)
