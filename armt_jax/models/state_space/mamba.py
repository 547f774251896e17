"""Mamba (Gu & Dao 2023, arXiv 2312.00752): selective state space behind a short convolution."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.protocol import Params
from armt_jax.models.state_space.block import pre_norm_block
from armt_jax.models.state_space.parts import (
    dense,
    init_conv,
    init_step_size,
    linear,
    silence,
    wide,
)
from armt_jax.state_space import selective_scan, short_conv


class MambaState(NamedTuple):
    """Attributes: ``h [l, b, i, n]``, the convolution's last inputs ``conv [l, b, w - 1, i]``."""

    h: jax.Array
    conv: jax.Array


def dt_rank(config: ModelConfig) -> int:
    """Rank of the step size: ``config.dt_rank``, or ``d_model / 16`` rounded up."""
    return config.dt_rank or -(-config.d_model // 16)


def _shapes(config: ModelConfig) -> Any:
    inner = config.d_inner
    return MambaState((inner, config.d_state), (config.d_conv - 1, inner))  # pyright: ignore


def _init(config: ModelConfig, rng: jax.Array, dtype: Any) -> Params:
    d, i, n, rank = config.d_model, config.d_inner, config.d_state, dt_rank(config)
    rngs = jax.random.split(rng, 9)
    A = jnp.broadcast_to(jnp.arange(1, n + 1, dtype=dtype), (i, n))
    step = {**linear(rngs[6], rank, i, dtype), "bias": init_step_size(rngs[7], (i,), dtype)}
    return {
        "in_x": linear(rngs[0], d, i, dtype),
        "in_z": linear(rngs[1], d, i, dtype),
        "conv_x": init_conv(rngs[2], config.d_conv, i, dtype, bias=True),
        "to_B": linear(rngs[3], i, n, dtype),
        "to_C": linear(rngs[4], i, n, dtype),
        "to_dt": linear(rngs[5], i, rank, dtype),
        "dt": step,
        "A_log": jnp.log(A),
        "D": jnp.ones((i,), dtype),
        # Divided by the root of the depth, as the authors' code does where residuals add up.
        "out": linear(rngs[8], i, d, dtype, (i * config.n_layer) ** -0.5),
    }


def _mix(
    config: ModelConfig, params: Params, state: MambaState, x: jax.Array, mask: jax.Array
) -> tuple[MambaState, jax.Array]:
    """``out((C . h + D x) * silu(z))`` of a normed ``x [b, t, d]``."""
    z = dense(params["in_z"], x)
    conv = params["conv_x"]
    inputs = dense(params["in_x"], x)
    last, u = short_conv(inputs, conv["taps"], conv["bias"], state.conv, mask)
    u = jax.nn.silu(u)
    dt = jax.nn.softplus(wide(dense(params["dt"], dense(params["to_dt"], u))))
    h, y = selective_scan(
        wide(u),
        silence(mask, dt),
        -jnp.exp(wide(params["A_log"])),
        wide(dense(params["to_B"], u)),
        wide(dense(params["to_C"], u)),
        state.h,
        config.chunk_size,
    )
    y = y + wide(params["D"])[None, None] * wide(u)
    return MambaState(h, last), dense(params["out"], y.astype(x.dtype) * jax.nn.silu(z))


MAMBA = pre_norm_block(_init, _shapes, _mix, holds_states=True)
