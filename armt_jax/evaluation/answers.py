"""Answers to questions about a memory: many questions, one reading."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from armt_jax.config import ConfigError
from armt_jax.evaluation.exact_match import predicted_tokens
from armt_jax.generation import GREEDY, Sampling, check_sampling, sample_token
from armt_jax.models.protocol import Params, Segment, SegmentModel, State

# Questions are filled up to a multiple of it, so that few programs are compiled.
_STEP = 8


def answer_prompts(
    model: SegmentModel,
    params: Params,
    state: State,
    prompts: Sequence[Sequence[np.ndarray]],
    *,
    max_new_tokens: int,
    stop_token: int | None,
    sampling: Sampling = GREEDY,
    rng: jax.Array | None = None,
) -> list[list[np.ndarray]]:
    """A continuation of every prompt, each read from the memory of its text.

    A prompt is a segment of its own, read without memory tokens; nothing is written. Prompts may be
    of any length (a causal model does not see what fills them up behind).

    Args:
      model, params: what answers.
      state: of ``b`` texts.
      prompts: of each text some prompts, integer ids ``[t]``; one prompt at least in all.
      max_new_tokens: an answer has no more.
      stop_token: ends an answer, and is not part of it; None: answers have ``max_new_tokens``.
      sampling: how a token is chosen, by default the likeliest.
      rng: key for a ``sampling`` with a temperature.

    Returns:
      int32 ids of each answer, without ``stop_token`` and what follows it, in the order of prompts.

    Raises:
      ConfigError: no prompt, an empty one, or one that with its answer is longer than a segment
        can be; a sampling that cannot be.
    """
    check_sampling(sampling, rng)
    sizes = [len(prompt) for row in prompts for prompt in row]
    if not sizes or min(sizes) < 1:
        raise ConfigError("prompts: must be one at least, each of one token at least")
    longest = max(sizes) + max_new_tokens
    model.config.check_segment(longest)
    shape = (len(prompts), max(map(len, prompts)))
    queries = np.full((*shape, -(-longest // _STEP) * _STEP), stop_token or 0, np.int32)
    lengths = np.ones(shape, np.int32)
    for b, row in enumerate(prompts):
        for q, prompt in enumerate(row):
            queries[b, q, : len(prompt)], lengths[b, q] = prompt, len(prompt)
    rng = jax.random.key(0) if rng is None else rng
    how = {"max_new_tokens": max_new_tokens, "sampling": sampling}
    filled = np.asarray(_continue(model, params, state, queries, lengths, rng, **how))
    return [
        [
            until_stop(filled[b, q, len(prompt) : len(prompt) + max_new_tokens], stop_token)
            for q, prompt in enumerate(row)
        ]
        for b, row in enumerate(prompts)
    ]


def until_stop(answer: np.ndarray, stop_token: int | None) -> np.ndarray:
    """Ids in front of the first ``stop_token``; all of them where there is none."""
    if stop_token is None:
        return answer
    stops = np.flatnonzero(answer == stop_token)
    return answer[: stops[0]] if stops.size else answer


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "sampling"))
def _continue(
    model: SegmentModel,
    params: Params,
    state: State,
    queries: jax.Array,
    lengths: jax.Array,
    rng: jax.Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
) -> jax.Array:
    """``queries [b, q, u]`` with the answers behind the first ``lengths [b, q]`` tokens of each."""
    place = jnp.arange(queries.shape[-1])

    def step(index: jax.Array, queries: jax.Array) -> jax.Array:
        hidden = model.ask(params, state, Segment(queries, jnp.ones(queries.shape, bool)))
        last = (lengths + index - 1)[:, :, None]
        logits = model.readout(params, jnp.take_along_axis(hidden, last[..., None], axis=2))
        if sampling.temperature == 0:
            tokens = predicted_tokens(logits)
        else:
            key = jax.random.fold_in(rng, index)
            rows = logits.reshape(-1, logits.shape[-1])
            tokens = sample_token(rows, key, sampling).reshape(logits.shape[:-1])
        return jnp.where(place[None, None] == last + 1, tokens, queries)

    return lax.fori_loop(0, max_new_tokens, step, queries)
