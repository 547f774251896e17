"""Generation: earlier segments are read into the memory, the last one is continued token by token.

The last segment has no memory tokens while it is continued, reads the memory and never writes it,
and grows for as long as the answer is (the authors' behaviour). Its keys and values are cached.
Recurrent models (``Continues``) simply go on: their cache is their state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from armt_jax.config import ConfigError
from armt_jax.models import cache as key_values
from armt_jax.models.protocol import Continues, Params, Segment, State
from armt_jax.recurrence.run import check_mask, check_tokens, read_runs
from armt_jax.recurrence.segmenting import groups, segment_lengths


class Sampling(NamedTuple):
    """How the next token is chosen.

    Attributes:
      temperature: 0 is greedy.
      top_k: sample among the k likeliest tokens; 0: all.
      top_p: sample among the likeliest tokens whose probability adds up to p; 1: all.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


def sample_token(logits: jax.Array, rng: jax.Array, sampling: Sampling) -> jax.Array:
    """Next token ids ``[b]`` of ``logits [b, v]``."""
    if sampling.temperature == 0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    # The likeliest is 0: however small the temperature, it stays finite.
    logits = (logits - jnp.max(logits, axis=-1, keepdims=True)) / sampling.temperature
    if 0 < sampling.top_k < logits.shape[-1]:
        smallest = lax.top_k(logits, sampling.top_k)[0][:, -1:]
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    if sampling.top_p < 1.0:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        weights = jax.nn.softmax(ordered, axis=-1)
        # A token stays while those before it weigh less than p: the first one always does.
        kept = jnp.cumsum(weights, axis=-1) - weights < sampling.top_p
        smallest = jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < smallest, -jnp.inf, logits)
    return jax.random.categorical(rng, logits, axis=-1).astype(jnp.int32)


def _check_sampling(sampling: Sampling, rng: jax.Array | None) -> None:
    if not sampling.temperature >= 0:
        raise ConfigError(f"temperature = {sampling.temperature}: must be 0 (greedy) or positive")
    if sampling.top_k < 0:
        raise ConfigError(f"top_k = {sampling.top_k}: must be 0 (all) or more")
    if not 0 < sampling.top_p <= 1:
        raise ConfigError(f"top_p = {sampling.top_p}: must be in (0, 1]")
    if sampling.temperature > 0 and rng is None:
        raise ConfigError("rng = None: sampling with a temperature needs a key")


class _Loop(NamedTuple):
    index: jax.Array
    token: jax.Array
    done: jax.Array
    ids: jax.Array
    scores: jax.Array
    cache: Any


def _reading(model: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``prefill`` and ``decode`` of the model, by default those of a key-value cache."""
    if isinstance(model, Continues):
        return model.prefill, model.decode
    read = (key_values.prefill, key_values.decode)
    return functools.partial(read[0], model), functools.partial(read[1], model)


@functools.partial(jax.jit, static_argnames=("model", "max_new_tokens", "sampling", "stop_token"))
def _continue(
    model: Any,
    params: Params,
    state: State,
    prompt: Segment,
    rng: jax.Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop_token: int | None,
) -> tuple[jax.Array, jax.Array]:
    batch = prompt.tokens.shape[0]
    prefill, decode = _reading(model)
    cache, hidden = prefill(params, state, prompt, max_new_tokens)
    logits = model.readout(params, hidden)
    fill = 0 if stop_token is None else stop_token

    def choose(index: jax.Array, logits: jax.Array, done: jax.Array) -> tuple[jax.Array, jax.Array]:
        token = sample_token(logits, jax.random.fold_in(rng, index), sampling)
        token = jnp.where(done, fill, token)
        return token, done if stop_token is None else done | (token == stop_token)

    def record(loop: _Loop, token: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        ids = lax.dynamic_update_index_in_dim(loop.ids, token, loop.index, 1)
        return ids, lax.dynamic_update_index_in_dim(loop.scores, logits, loop.index, 1)

    def body(loop: _Loop) -> _Loop:
        cache, hidden = decode(params, state, loop.cache, loop.token)
        logits = model.readout(params, hidden)
        token, done = choose(loop.index, logits, loop.done)
        ids, scores = record(loop, token, logits)
        return _Loop(loop.index + 1, token, done, ids, scores, cache)

    start = _Loop(
        index=jnp.zeros((), jnp.int32),
        token=jnp.zeros((batch,), jnp.int32),
        done=jnp.zeros((batch,), bool),
        ids=jnp.full((batch, max_new_tokens), fill, jnp.int32),
        scores=jnp.zeros((batch, max_new_tokens, logits.shape[-1]), logits.dtype),
        cache=cache,
    )
    token, done = choose(start.index, logits, start.done)
    ids, scores = record(start, token, logits)
    loop = _Loop(start.index + 1, token, done, ids, scores, cache)
    going = lambda loop: (loop.index < max_new_tokens) & ~jnp.all(loop.done)  # noqa: E731
    loop = lax.while_loop(going, body, loop)
    return loop.ids, loop.scores


def generate_with_scores(
    model: Any,
    params: Params,
    tokens: jax.Array,
    *,
    segment_size: int,
    max_new_tokens: int,
    alignment: str = "left",
    attention_mask: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: jax.Array | None = None,
    stop_token: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """As ``generate``; also the raw logits of every step ``[b, new, v]``, 0 after an early stop."""
    tokens = check_tokens(tokens, model.config.vocab_size)
    mask = check_mask(attention_mask, tokens)
    if not isinstance(mask, Tracer) and not np.all(mask[:, -1]):
        row = int(np.argmin(mask[:, -1]))
        raise ConfigError(
            f"attention_mask[{row}, -1] = False: a prompt ends with a token, pad it on the left"
        )
    sampling = Sampling(temperature, top_k, top_p)
    _check_sampling(sampling, rng)
    if max_new_tokens < 1:
        raise ConfigError(f"max_new_tokens = {max_new_tokens}: must be at least 1")
    if stop_token is not None and not 0 <= stop_token < model.config.vocab_size:
        accepted = f"must be in [0, {model.config.vocab_size}), the vocabulary"
        raise ConfigError(f"stop_token = {stop_token}: {accepted}")
    lengths = segment_lengths(tokens.shape[1], segment_size, alignment)
    if len(lengths) > 1:
        model.config.check_segment(max(lengths[:-1]))
    cfg = model.config
    if cfg.learned_positions and lengths[-1] + max_new_tokens > cfg.n_positions:
        raise ConfigError(
            f"max_new_tokens = {max_new_tokens}: must be at most {cfg.n_positions - lengths[-1]}, "
            f"model.n_positions = {cfg.n_positions} less a last segment of {lengths[-1]} tokens"
        )
    state = model.init_state(tokens.shape[0], model.compute_dtype(params))
    text = Segment(tokens, mask)
    if len(lengths) > 1:
        state = _read(model, params, state, text, tuple(groups(lengths[:-1])))
    start = tokens.shape[1] - lengths[-1]
    return _continue(
        model,
        params,
        state,
        Segment(tokens[:, start:], mask[:, start:]),
        jax.random.key(0) if rng is None else rng,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop_token=stop_token,
    )


@functools.partial(jax.jit, static_argnames=("model", "runs"))
def _read(
    model: Any,
    params: Params,
    state: State,
    text: Segment,
    runs: tuple[tuple[int, int, int], ...],
) -> State:
    return read_runs(model, params, state, text, list(runs), need_hidden=False)[0]


def generate(
    model: Any,
    params: Params,
    tokens: jax.Array,
    *,
    segment_size: int,
    max_new_tokens: int,
    alignment: str = "left",
    attention_mask: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    rng: jax.Array | None = None,
    stop_token: int | None = None,
) -> jax.Array:
    """Continue texts: greedy by default, sampled with a ``temperature`` and a key.

    Args:
      model: from ``create_model``.
      params: its parameters.
      tokens: ``[b, n]`` prompts.
      segment_size: tokens per segment; only the last segment is continued.
      max_new_tokens: how many to generate.
      alignment, attention_mask: as in ``forward``; in the last segment padding takes no position,
        and stands on the left.
      temperature, top_k, top_p: see ``Sampling``.
      rng: key for sampling.
      stop_token: a text ends after it; the rest of its row is filled with it.

    Returns:
      ``[b, max_new_tokens]`` int32.

    Raises:
      ConfigError: settings that cannot be.
    """
    return generate_with_scores(
        model,
        params,
        tokens,
        segment_size=segment_size,
        max_new_tokens=max_new_tokens,
        alignment=alignment,
        attention_mask=attention_mask,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        rng=rng,
        stop_token=stop_token,
    )[0]
