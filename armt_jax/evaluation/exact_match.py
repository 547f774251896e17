"""Exact match of answers to queries ``key - value ,``: the value's digits and the separator.

Axis legend: ``...`` any leading axes (batch, queries), ``t`` token of the query, ``v`` vocabulary.
Everything here is pure and can be used under ``jax.jit`` with ``value_size`` static.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from armt_jax.config import ConfigError

NO_TOKEN = -1
# Batches come from the host as NumPy arrays.
Array = jax.Array | np.ndarray


class MatchCount(NamedTuple):
    """Exact answers and queries asked, int32 scalars: counts of batches add up exactly."""

    correct: jax.Array
    total: jax.Array


def answer_length(value_size: int) -> int:
    """Tokens of an answer: ``value_size`` digits and the closing separator."""
    if value_size < 1:
        raise ConfigError(f"value_size = {value_size!r}: must be at least 1")
    return value_size + 1


def predicting_positions(length: int, value_size: int) -> np.ndarray:
    """Positions whose logits predict the answer: where the loss is taken.

    The answer is the last ``value_size + 1`` tokens of a query; each is predicted by the position
    before it, so the selected ones are ``length - value_size - 2 .. length - 2``: the ``-`` and
    the value's digits. This is a ``labels_mask`` in the sense of ``next_token_loss``.

    Args:
      length: number of tokens ``t`` of a query.
      value_size: digits of a value.

    Returns:
      bool ``[t]``, a NumPy constant.

    Raises:
      ConfigError: a query too short to hold an answer and one token before it.
    """
    answer = answer_length(value_size)
    if length < answer + 1:
        raise ConfigError(
            f"query length = {length}: must be at least {answer + 1}"
            f" (an answer of {answer} tokens and one token before it)"
        )
    position = np.arange(length)
    return (position >= length - 1 - answer) & (position < length - 1)


def predicted_tokens(logits: Array) -> jax.Array:
    """Likeliest next token after each position: ``[..., t, v] -> [..., t]`` int32.

    Ties go to the lowest id. A row with a NaN gives ``NO_TOKEN``, which matches nothing: argmax
    alone would name the NaN's own place, and a diverged model would score on that digit.
    """
    tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), jnp.int32(NO_TOKEN), tokens)


def exact_match(predicted: Array, tokens: Array, value_size: int) -> jax.Array:
    """Whether each query's whole answer is predicted, from teacher-forced predictions.

    The logits come from one pass over the query *with its right answer in place* (teacher
    forcing): no decoding is needed. The result is nevertheless exactly that of greedy decoding.
    Greedy decoding is right when its every token is right. By induction, while the first i
    tokens are right, it has read what the teacher-forced pass read (the model is causal), so
    token i+1 is the same argmax in both: either both are right so far, or both have already
    made the mistake that makes the answer wrong. (After that mistake the two may differ, which
    changes the share of right *tokens*, but not exact match.) It does not hold for sampling,
    beam search, or where a cached decoding step rounds differently and breaks a tie.

    Args:
      predicted: integer ``[..., t]``; ``predicted[..., i]`` is the predicted token at i + 1, as
        ``predicted_tokens`` gives it.
      tokens: integer ``[..., t]``, the query with its right answer.
      value_size: digits of a value; the answer is the last ``value_size + 1`` tokens.

    Returns:
      bool ``[...]``, one per query.

    Raises:
      ConfigError: shapes that differ, or a query too short for the answer.
    """
    if predicted.shape != tokens.shape:
        raise ConfigError(
            f"predicted of shape {predicted.shape}: must have the shape of tokens, {tokens.shape}"
        )
    if tokens.ndim < 1:
        raise ConfigError("tokens of shape (): must have an axis of tokens")
    selected = np.flatnonzero(predicting_positions(tokens.shape[-1], value_size))
    start, stop = int(selected[0]), int(selected[-1]) + 1
    right = predicted[..., start:stop] == tokens[..., start + 1 : stop + 1]
    return jnp.all(right, axis=-1)


def exact_match_from_logits(logits: Array, tokens: Array, value_size: int) -> jax.Array:
    """``exact_match`` of logits ``[..., t, v]`` against ``tokens [..., t]``; bool ``[...]``."""
    return exact_match(predicted_tokens(logits), tokens, value_size)


def count_matches(matches: Array, real: Array | None = None) -> MatchCount:
    """Exact answers and queries, over all axes.

    Args:
      matches: bool ``[...]``, as ``exact_match`` gives it.
      real: bool ``[...]``: False where a query only fills up the batch (a context with fewer
        pairs than the longest, or a last, smaller batch). None: every query is real.

    Raises:
      ConfigError: ``real`` of another shape than ``matches``.
    """
    if real is None:
        real = jnp.ones(matches.shape, dtype=bool)
    if real.shape != matches.shape:
        raise ConfigError(
            f"real of shape {real.shape}: must have the shape of matches, {matches.shape}"
        )
    real = real.astype(bool)
    return MatchCount(jnp.sum(matches & real, dtype=jnp.int32), jnp.sum(real, dtype=jnp.int32))
