"""What RWKV-5 and RWKV-7 have in common: token shift, how parameters start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.protocol import Params

# GroupNorm's 1e-5 of outputs divided by 8.
GROUP_NORM_EPS = 64e-5


def depth(config: ModelConfig, index: jax.Array, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """How deep a layer is: 0 to 1, and 1 to almost 0."""
    at = jnp.asarray(index, dtype)
    return at / max(config.n_layer - 1, 1), 1.0 - at / config.n_layer


def channels(config: ModelConfig, dtype: Any) -> jax.Array:
    """0 to 1 over the width ``[d]``."""
    return jnp.linspace(0.0, 1.0, config.d_model, dtype=dtype)


def mix_start(config: ModelConfig, power: jax.Array, dtype: Any) -> jax.Array:
    """``(i / d) ** power``, a share of the token itself that grows over the channels ``i``."""
    return (jnp.arange(config.d_model, dtype=dtype) / config.d_model) ** power


def orthogonal(rng: jax.Array, rows: int, columns: int, dtype: Any, scale: float) -> Params:
    """An orthogonal matrix times ``scale``, larger where it widens."""
    gain = scale * max(1.0, columns / rows) ** 0.5
    return {"kernel": gain * jax.nn.initializers.orthogonal()(rng, (rows, columns), dtype)}


def zeros(rows: int, columns: int, dtype: Any) -> Params:
    """A matrix of zeros: the block starts as the identity."""
    return {"kernel": jnp.zeros((rows, columns), dtype)}


def head_norm(config: ModelConfig, index: jax.Array, dtype: Any) -> Params:
    """The norm of the heads' outputs, whose scale grows with depth."""
    scale = ((1.0 + jnp.asarray(index, dtype)) / config.n_layer) ** 0.7
    ones = jnp.ones((config.d_model,), dtype)
    return {"scale": scale * ones, "bias": jnp.zeros_like(ones)}


def shifted_mixes(
    mix: Params, names: Sequence[str], x: jax.Array, before: jax.Array
) -> list[jax.Array]:
    """``x + (x_(t-1) - x) mu`` for each of ``names``: 0 is the token itself, 1 the one before."""
    return [x + (before - x) * mix[name].astype(x.dtype)[None, None] for name in names]
