"""DeltaNet (Yang et al. 2024, arXiv 2406.06484) and Gated DeltaNet (arXiv 2412.06464).

Queries, keys and values of ``n_head`` heads go through short convolutions and SiLU, queries and
keys are made unit vectors, and the delta rule writes. The gated one forgets by a scalar a head and
gates its output.
"""

from __future__ import annotations

import functools
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
    unit,
    wide,
)
from armt_jax.state_space import gated_delta_rule, short_conv


class DeltaNetState(NamedTuple):
    """Attributes: ``S [l, b, h, n, p]``, and the last inputs of the three convolutions."""

    S: jax.Array
    conv_q: jax.Array
    conv_k: jax.Array
    conv_v: jax.Array


def _shapes(config: ModelConfig) -> Any:
    h, n, before = config.n_head, config.d_state, config.d_conv - 1
    shapes: Any = (
        (h, n, config.d_inner // h),
        (before, h * n),
        (before, h * n),
        (before, config.d_inner),
    )
    return DeltaNetState(*shapes)


def _init(config: ModelConfig, rng: jax.Array, dtype: Any, *, gated: bool) -> Params:
    d, i, h = config.d_model, config.d_inner, config.n_head
    rngs = jax.random.split(rng, 12)
    widths = {"q": h * config.d_state, "k": h * config.d_state, "v": i}
    params: Params = {}
    for index, (name, width) in enumerate(widths.items()):
        params[f"in_{name}"] = linear(rngs[index], d, width, dtype)
        conv = init_conv(rngs[3 + index], config.d_conv, width, dtype, bias=False)
        params[f"conv_{name}"] = conv
    params["to_beta"] = linear(rngs[6], d, h, dtype)
    params["head_norm"] = {"scale": jnp.ones((i // h,), dtype)}
    params["out"] = linear(rngs[7], i, d, dtype)
    if gated:
        params["in_gate"] = linear(rngs[8], d, i, dtype)
        step = {**linear(rngs[9], d, h, dtype), "bias": init_step_size(rngs[10], (h,), dtype)}
        params["to_decay"] = step
        params["A_log_head"] = jnp.log(jax.random.uniform(rngs[11], (h,), dtype, 1.0, 16.0))
    return params


def _mix(
    config: ModelConfig, params: Params, state: DeltaNetState, x: jax.Array, mask: jax.Array
) -> tuple[DeltaNetState, jax.Array]:
    """``out(norm(S^T q) [* silu(gate)])`` of a normed ``x [b, t, d]``."""
    parts, last = {}, {}
    for name, before in zip(("q", "k", "v"), state[1:], strict=True):
        inputs = dense(params[f"in_{name}"], x)
        taps = params[f"conv_{name}"]["taps"]
        last[name], out = short_conv(inputs, taps, None, before, mask)
        parts[name] = heads(wide(jax.nn.silu(out)), config.n_head)
    log_decay = None
    if "A_log_head" in params:
        step = jax.nn.softplus(wide(dense(params["to_decay"], x)))
        log_decay = silence(mask, -jnp.exp(wide(params["A_log_head"]))[None, None] * step)
    S, y = gated_delta_rule(
        unit(parts["q"]) * config.d_state**-0.5,
        silence(mask, unit(parts["k"])),
        silence(mask, parts["v"]),
        silence(mask, jax.nn.sigmoid(wide(dense(params["to_beta"], x)))),
        log_decay,
        state.S,
        config.chunk_size,
    )
    y = rms_norm(params["head_norm"]["scale"], y, config.layer_norm_eps)
    y = y.reshape(*x.shape[:2], config.d_inner).astype(x.dtype)
    if "in_gate" in params:
        y = y * jax.nn.silu(dense(params["in_gate"], x))
    return DeltaNetState(S, last["q"], last["k"], last["v"]), dense(params["out"], y)


DELTA_NET = pre_norm_block(functools.partial(_init, gated=False), _shapes, _mix)
GATED_DELTA_NET = pre_norm_block(functools.partial(_init, gated=True), _shapes, _mix)
