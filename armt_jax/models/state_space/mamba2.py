"""Mamba-2 (Dao & Gu 2024, arXiv 2405.21060): heads with a scalar decay, one group of B and C."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.protocol import Params
from armt_jax.models.state_space.block import pre_norm_block
from armt_jax.models.state_space.parts import (
    dense,
    heads,
    init_conv,
    init_step_size,
    linear,
    rms_norm,
    silence,
    wide,
)
from armt_jax.state_space import short_conv, state_space_dual


class Mamba2State(NamedTuple):
    """Attributes: ``H [l, b, h, p, n]``, and the last inputs of the convolutions of x, B and C."""

    H: jax.Array
    conv_x: jax.Array
    conv_b: jax.Array
    conv_c: jax.Array


def _shapes(config: ModelConfig) -> Any:
    h, i, n, before = config.n_head, config.d_inner, config.d_state, config.d_conv - 1
    shapes: Any = ((h, i // h, n), (before, i), (before, n), (before, n))
    return Mamba2State(*shapes)


def _init(config: ModelConfig, rng: jax.Array, dtype: Any) -> Params:
    d, i, h = config.d_model, config.d_inner, config.n_head
    rngs = jax.random.split(rng, 11)
    params: Params = {}
    for index, (name, width) in enumerate(
        {"x": i, "B": config.d_state, "C": config.d_state}.items()
    ):
        params[f"in_{name}"] = linear(rngs[index], d, width, dtype)
        conv = init_conv(rngs[3 + index], config.d_conv, width, dtype, bias=True)
        params[f"conv_{name}"] = conv
    step = {**linear(rngs[7], d, h, dtype), "bias": init_step_size(rngs[8], (h,), dtype)}
    return {
        **params,
        "in_z": linear(rngs[6], d, i, dtype),
        "to_dt": step,
        "A_log_head": jnp.log(jax.random.uniform(rngs[9], (h,), dtype, 1.0, 16.0)),
        "D_head": jnp.ones((h,), dtype),
        "out_norm": {"scale": jnp.ones((i,), dtype)},
        "out": linear(rngs[10], i, d, dtype, (i * config.n_layer) ** -0.5),
    }


def _mix(
    config: ModelConfig, params: Params, state: Mamba2State, x: jax.Array, mask: jax.Array
) -> tuple[Mamba2State, jax.Array]:
    """``out(rms_norm((H C + D x) * silu(z)))`` of a normed ``x [b, t, d]``."""
    parts, last = {}, {}
    for name, before in zip(("x", "B", "C"), state[1:], strict=True):
        inputs = dense(params[f"in_{name}"], x)
        conv = params[f"conv_{name}"]
        last[name], out = short_conv(inputs, conv["taps"], conv["bias"], before, mask)
        parts[name] = wide(jax.nn.silu(out))
    u = heads(parts["x"], config.n_head)
    dt = jax.nn.softplus(wide(dense(params["to_dt"], x)))
    A = -jnp.exp(wide(params["A_log_head"]))
    H, y = state_space_dual(
        u, silence(mask, dt), A, parts["B"], parts["C"], state.H, config.chunk_size
    )
    y = y + wide(params["D_head"])[None, None, :, None] * u
    y = y.reshape(*x.shape[:2], config.d_inner).astype(x.dtype)
    y = y * jax.nn.silu(dense(params["in_z"], x))
    y = rms_norm(params["out_norm"]["scale"], y, config.layer_norm_eps)
    return Mamba2State(H, last["x"], last["B"], last["C"]), dense(params["out"], y)


MAMBA2 = pre_norm_block(_init, _shapes, _mix)
