"""The next token: the likeliest, or one drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from armt_jax.config import ConfigError


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


GREEDY = Sampling()


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


def check_sampling(sampling: Sampling, rng: jax.Array | None) -> None:
    """Raise ``ConfigError`` where a setting cannot be, or a temperature has no key."""
    if not 0 <= sampling.temperature < math.inf:
        raise ConfigError(f"temperature = {sampling.temperature}: must be 0 (greedy) or positive")
    if sampling.top_k < 0:
        raise ConfigError(f"top_k = {sampling.top_k}: must be 0 (all) or more")
    if not 0 < sampling.top_p <= 1:
        raise ConfigError(f"top_p = {sampling.top_p}: must be in (0, 1]")
    if sampling.temperature > 0 and rng is None:
        raise ConfigError("rng = None: sampling with a temperature needs a key")
