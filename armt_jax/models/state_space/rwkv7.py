"""RWKV-7, "Goose" (Peng et al. 2025, arXiv 2503.14456): a generalised delta rule.

Decay, in-context learning rate, value residual and gate are low-rank functions of the token. The
value residual reads the first layer's values, so layers hand on ``[x | v_first | number of layers
passed]``, ``2 d + 1`` columns; with that all layers are alike (the first has matrices of the value
residual that nothing reads). ``n_head`` heads of ``d_model / n_head`` channels; the hidden width of
the channel mix is ``d_ff``.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.protocol import Params
from armt_jax.models.state_space.block import Block
from armt_jax.models.state_space.parts import (
    dense,
    group_norm,
    heads,
    init_layer_norm,
    layer_norm,
    linear,
    silence,
    wide,
)
from armt_jax.models.state_space.rwkv_parts import (
    GROUP_NORM_EPS,
    channels,
    depth,
    head_norm,
    mix_start,
    orthogonal,
    shifted_mixes,
    zeros,
)
from armt_jax.state_space import previous_token, wkv7

# Rank over the root of the width, as the authors suggest: decay, learning rate, value, gate.
RANKS = {"decay": 2.5, "rate": 2.5, "value": 1.7, "gate": 5.0}


class Rwkv7State(NamedTuple):
    """Attributes: ``S [l, b, h, n, n]``, keys first; both mixes' last token ``[l, b, 1, d]``."""

    S: jax.Array
    time: jax.Array
    channel: jax.Array


def _shapes(config: ModelConfig) -> Any:
    d, e = config.d_model, config.head_dim
    shapes: Any = ((config.n_head, e, e), (1, d), (1, d))
    return Rwkv7State(*shapes)


def rank(config: ModelConfig, name: str) -> int:
    """Rank of one of ``RANKS``: a multiple of 32."""
    return max(32, round(RANKS[name] * math.sqrt(config.d_model) / 32) * 32)


def _init(config: ModelConfig, rng: jax.Array, index: jax.Array, dtype: Any) -> Params:
    d, hidden, e = config.d_model, config.ff_dim, config.head_dim
    up, down = depth(config, index, dtype)
    n = channels(config, dtype)
    line = n - 0.5
    middle = (e - 1) / 2
    zigzag = ((jnp.arange(d) % e).astype(dtype) - middle) / max(middle, 0.5)
    zigzag = zigzag * jnp.abs(zigzag)
    rngs = jax.random.split(rng, 8)

    def low_rank(rng: jax.Array, name: str, start: jax.Array | None) -> Params:
        """Nothing but its ``start`` at first."""
        size = rank(config, name)
        matrix = orthogonal(rng, size, d, dtype, 0.1)
        matrix = matrix if start is None else {**matrix, "bias": start}
        return {"down": zeros(d, size, dtype), "up": matrix}

    powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
    decay = -6.0 + 6.0 * n ** (1.0 + up**0.3) + 0.5 + 2.5 * zigzag
    time = {
        "mix": {name: 1.0 - mix_start(config, p * down, dtype) for name, p in powers.items()},
        "decay": low_rank(rngs[0], "decay", decay),
        "rate": low_rank(rngs[1], "rate", -0.19 + 0.3 * zigzag + 0.4 * line),
        "value": low_rank(rngs[2], "value", 0.73 - 0.4 * line),
        "gate": low_rank(rngs[3], "gate", None),
        "removal": 0.71 - 0.1 * line,
        "rate_of_key": jnp.full((d,), 1.02, dtype),
        "bonus": jnp.full((d,), -0.04, dtype),
        "r": linear(rngs[4], d, d, dtype, 0.5 * d**-0.5),
        "k": linear(rngs[5], d, d, dtype, 0.05 * d**-0.5),
        "v": linear(rngs[6], d, d, dtype, 0.5 * d**-0.5),
        "out_norm": head_norm(config, index, dtype),
        "out": zeros(d, d, dtype),
    }
    channel = {
        "mix": {"k": 1.0 - mix_start(config, down**4, dtype)},
        "k": linear(rngs[7], d, hidden, dtype, 0.5 * d**-0.5),
        "out": zeros(hidden, d, dtype),
    }
    norms = {f"norm_{name}": init_layer_norm(d, dtype) for name in ("time", "channel")}
    return {**norms, "time": time, "channel": channel}


def _apply(
    config: ModelConfig, params: Params, state: Rwkv7State, x: jax.Array, mask: jax.Array
) -> tuple[Rwkv7State, jax.Array]:
    d = config.d_model
    x, v_first, passed = x[..., :d], x[..., d : 2 * d], x[..., 2 * d :]
    normed = layer_norm(params["norm_time"], x, config.layer_norm_eps)
    last, before = previous_token(normed, state.time, mask)
    S, v_first, y = _time_mix(
        config, params["time"], state.S, normed, before, mask, v_first, passed == 0
    )
    x = x + y
    normed = layer_norm(params["norm_channel"], x, config.layer_norm_eps)
    last_channel, before = previous_token(normed, state.channel, mask)
    (xk,) = shifted_mixes(params["channel"]["mix"], ("k",), normed, before)
    hidden = jnp.square(jax.nn.relu(dense(params["channel"]["k"], xk)))
    x = x + dense(params["channel"]["out"], hidden)
    carried = jnp.concatenate([x, v_first, passed + 1], axis=-1)
    return Rwkv7State(S, last, last_channel), carried


def _time_mix(
    config: ModelConfig,
    params: Params,
    S: jax.Array,
    x: jax.Array,
    before: jax.Array,
    mask: jax.Array,
    v_first: jax.Array,
    is_first: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of a normed ``x [b, t, d]``: the memory, the first layer's values, the output."""
    h = config.n_head
    names = ("r", "w", "k", "v", "a", "g")
    xr, xw, xk, xv, xa, xg = shifted_mixes(params["mix"], names, x, before)
    low = {
        "decay": jnp.tanh(dense(params["decay"]["down"], xw)),
        "rate": dense(params["rate"]["down"], xa),
        "value": dense(params["value"]["down"], xv),
        "gate": jax.nn.sigmoid(dense(params["gate"]["down"], xg)),
    }
    decay, rate, residual, gate = (dense(params[name]["up"], low[name]) for name in low)
    # exp(-exp(-softplus(-w) - 1/2)): at least exp(-exp(-1/2)) of a channel stays.
    log_decay = -jnp.exp(-jax.nn.softplus(-wide(decay)) - 0.5)
    v = dense(params["v"], xv)
    v_first = jnp.where(is_first, v, v_first)
    v = v + (v_first - v) * jnp.where(is_first, 0, jax.nn.sigmoid(residual))
    rate = jax.nn.sigmoid(wide(rate))
    r, v_wide, k = wide(dense(params["r"], xr)), wide(v), wide(dense(params["k"], xk))
    removal = heads(k * wide(params["removal"])[None, None], h)
    # Kept away from 0 under the root, where a derivative would be infinite.
    squares = jnp.sum(removal * removal, axis=-1, keepdims=True)
    removal = removal * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
    k = k * (1.0 + (rate - 1.0) * wide(params["rate_of_key"])[None, None])
    r, k, v_wide, rate, log_decay = (heads(part, h) for part in (r, k, v_wide, rate, log_decay))
    S, y = wkv7(
        r,
        silence(mask, log_decay),
        silence(mask, k),
        silence(mask, v_wide),
        -removal,
        silence(mask, removal * rate),
        S,
        config.chunk_size,
    )
    y = group_norm(params["out_norm"], y, GROUP_NORM_EPS)
    bonus = heads(wide(params["bonus"])[None, None], h)
    own = jnp.sum(r * k * bonus, axis=-1, keepdims=True) * v_wide
    y = (y + own.reshape(y.shape)).astype(x.dtype)
    return S, v_first, dense(params["out"], y * gate)


def _carried(config: ModelConfig) -> int:
    return 2 * config.d_model + 1


RWKV7 = Block(_init, _shapes, _apply, is_rwkv=True, carried=_carried)
