"""What the blocks of all families are made of: products, norms, MLPs, and how they start.

Parameters are plain dicts. A matrix is a leaf ``kernel``, which is how the optimizer knows one.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.protocol import Params


def linear(
    rng: jax.Array, rows: int, columns: int, dtype: Any, scale: float | None = None
) -> Params:
    """A matrix uniform in ``+-scale``, by default ``1/sqrt(rows)`` as ``torch.nn.Linear``."""
    bound = rows**-0.5 if scale is None else scale
    return {"kernel": jax.random.uniform(rng, (rows, columns), dtype, -bound, bound)}


def dense(params: Params, x: jax.Array) -> jax.Array:
    """``x W (+ b)``, in the dtype of ``x``."""
    out = x @ params["kernel"].astype(x.dtype)
    return out + _rows(params["bias"], out) if "bias" in params else out


def rms_norm(scale: jax.Array, x: jax.Array, eps: float) -> jax.Array:
    """``x / rms(x) * scale`` over the last axis, statistics in float32 or wider."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    out = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (out * _rows(scale, out)).astype(x.dtype)


def layer_norm(params: Params, x: jax.Array, eps: float) -> jax.Array:
    """Layer norm over the last axis, statistics in float32 or wider."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    out = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (out * _rows(params["scale"], out) + _rows(params["bias"], out)).astype(x.dtype)


def init_layer_norm(width: int, dtype: Any) -> Params:
    """Scale 1, bias 0."""
    return {"scale": jnp.ones((width,), dtype), "bias": jnp.zeros((width,), dtype)}


def group_norm(params: Params, x: jax.Array, eps: float) -> jax.Array:
    """Layer norm of every head of ``x [b, t, h, p]``, then scale and bias ``[h p]``."""
    wide = x - jnp.mean(x, axis=-1, keepdims=True)
    out = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    out = out.reshape(*x.shape[:2], -1)
    return out * _rows(params["scale"], out) + _rows(params["bias"], out)


def unit(x: jax.Array, eps: float = 1e-6) -> jax.Array:
    """``x / sqrt(|x|^2 + eps)`` over the last axis."""
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + eps)


def wide(x: jax.Array) -> jax.Array:
    """``x`` in float32 or wider: what recurrences are computed in."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def silence(mask: jax.Array, x: jax.Array) -> jax.Array:
    """``x [b, t, ...]``, 0 at padding."""
    return jnp.where(mask.reshape(*mask.shape, *(1,) * (x.ndim - 2)), x, 0)


def init_conv(rng: jax.Array, width: int, channels: int, dtype: Any, bias: bool) -> Params:
    """Taps as ``torch.nn.Conv1d`` has them: uniform in ``+-1/sqrt(width)``."""
    taps_rng, bias_rng = jax.random.split(rng)
    bound = width**-0.5
    params = {"taps": jax.random.uniform(taps_rng, (width, channels), dtype, -bound, bound)}
    if bias:
        params["bias"] = jax.random.uniform(bias_rng, (channels,), dtype, -bound, bound)
    return params


def init_mlp(config: ModelConfig, rng: jax.Array, dtype: Any) -> Params:
    """The gated MLP behind a mixer, with its norm."""
    rngs = jax.random.split(rng, 3)
    d, hidden = config.d_model, config.ff_dim
    return {
        "norm": {"scale": jnp.ones((d,), dtype)},
        "gate": linear(rngs[0], d, hidden, dtype),
        "up": linear(rngs[1], d, hidden, dtype),
        "down": linear(rngs[2], hidden, d, dtype),
    }


def gated_mlp(config: ModelConfig, params: Params, x: jax.Array) -> jax.Array:
    """``x + W_down (silu(W_gate n) * W_up n)``, ``n`` the norm of ``x`` (SwiGLU, Shazeer 2020)."""
    normed = rms_norm(params["norm"]["scale"], x, config.layer_norm_eps)
    hidden = jax.nn.silu(dense(params["gate"], normed)) * dense(params["up"], normed)
    return x + dense(params["down"], hidden)


def init_step_size(rng: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A bias whose softplus is log-uniform in [0.001, 0.1] (Mamba's and Gated DeltaNet's)."""
    low, high = math.log(1e-3), math.log(1e-1)
    dt = jnp.exp(jax.random.uniform(rng, shape, dtype, low, high))
    return dt + jnp.log(-jnp.expm1(-dt))


def heads(x: jax.Array, count: int) -> jax.Array:
    """``[b, t, h e] -> [b, t, h, e]``."""
    return x.reshape(*x.shape[:-1], count, x.shape[-1] // count)


def _rows(vector: jax.Array, like: jax.Array) -> jax.Array:
    """A vector of the last axis, of the rank and dtype of ``like``."""
    return vector.astype(like.dtype).reshape(*(1,) * (like.ndim - vector.ndim), *vector.shape)
