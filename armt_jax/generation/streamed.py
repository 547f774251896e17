"""Texts without end, handed out while they are made: a token of each at a time."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.generation.decoding import How, Progress, begin, choose, follow
from armt_jax.generation.prompts import read_prompts
from armt_jax.generation.sampling import Sampling
from armt_jax.generation.segments import filled, opening
from armt_jax.models.protocol import Params, Segment, SegmentModel, State


def generate_stream(
    model: SegmentModel,
    params: Params,
    tokens: jax.Array,
    *,
    segment_size: int,
    max_new_tokens: int,
    attention_mask: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: jax.Array | None = None,
    stop_token: int | None = None,
) -> Iterator[jax.Array]:
    """The ids of ``generate(..., new_segments=True)``, as soon as they are there.

    The same programs serve any number of tokens, and no more than a segment of them is held. Every
    token goes by the host: where nobody wants to see it at once, ``generate`` has one program for
    all. What is asked for is checked, and the prompt read, before this returns.

    Args:
      model, params, tokens, segment_size, attention_mask: as in ``generate``.
      max_new_tokens: there are no more.
      temperature, top_k, top_p, rng: as in ``generate``.
      stop_token: a text ends after it; its further ids are it, and all end with the last one.

    Returns:
      Ids ``[b]`` int32, one after another.

    Raises:
      ConfigError: settings that cannot be.
    """
    how = How(Sampling(temperature, top_k, top_p), stop_token, scores=False)
    state, prompt = read_prompts(
        model,
        params,
        tokens,
        attention_mask,
        how,
        rng,
        segment_size=segment_size,
        max_new_tokens=max_new_tokens,
        alignment="left",
        new_segments=True,
    )
    rng = jax.random.key(0) if rng is None else rng
    return _tokens(model, params, state, prompt, rng, max_new_tokens, segment_size, how)


def _tokens(
    model: SegmentModel,
    params: Params,
    state: State,
    prompt: Segment,
    rng: jax.Array,
    new: int,
    segment_size: int,
    how: How,
) -> Iterator[jax.Array]:
    progress = Progress.start(prompt.tokens.shape[0])
    while True:
        # The last of them opens the next segment.
        room = segment_size - prompt.tokens.shape[1] + 1
        wanted = min(new, room)
        token, cache, progress = _first(
            model, params, state, prompt, rng, progress, room=room, how=how
        )
        found = [token]
        yield token
        while len(found) < wanted and not jnp.all(progress.done):
            token, cache, progress = _one_more(
                model, params, state, cache, token, rng, progress, how=how
            )
            found.append(token)
            yield token
        new -= wanted
        if new == 0 or jnp.all(progress.done):
            return
        state = _write(model, params, state, prompt, jnp.stack(found, axis=1))
        prompt = opening(token)


@functools.partial(jax.jit, static_argnames=("model", "room", "how"))
def _first(
    model: SegmentModel,
    params: Params,
    state: State,
    prompt: Segment,
    rng: jax.Array,
    progress: Progress,
    *,
    room: int,
    how: How,
) -> tuple[jax.Array, Any, Progress]:
    cache, logits = begin(model, params, state, prompt, room)
    token, progress = choose(rng, progress, logits, how)
    return token, cache, progress


@functools.partial(jax.jit, static_argnames=("model", "how"), donate_argnames=("cache",))
def _one_more(
    model: SegmentModel,
    params: Params,
    state: State,
    cache: Any,
    token: jax.Array,
    rng: jax.Array,
    progress: Progress,
    *,
    how: How,
) -> tuple[jax.Array, Any, Progress]:
    cache, logits = follow(model, params, state, cache, token)
    token, progress = choose(rng, progress, logits, how)
    return token, cache, progress


@functools.partial(jax.jit, static_argnames=("model",))
def _write(
    model: SegmentModel, params: Params, state: State, prompt: Segment, ids: jax.Array
) -> State:
    return model.write(params, state, filled(prompt, ids))
