"""RWKV-5, "Eagle" (Peng et al. 2024, arXiv 2404.05892): time mix and channel mix.

``n_head`` heads of ``d_model / n_head`` channels, each with a fixed decay per channel and a bonus
for the token at hand; the hidden width of the channel mix is ``d_ff``. The shares of the token
shift are kept as shares of the token before (as RWKV-6 and 7 do): the authors' ``time_mix`` is 1
minus it.
"""

from __future__ import annotations

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
from armt_jax.state_space import previous_token, wkv5


class Rwkv5State(NamedTuple):
    """Attributes: ``S [l, b, h, n, n]``, and the last token of both mixes ``[l, b, 1, d]``."""

    S: jax.Array
    time: jax.Array
    channel: jax.Array


def _shapes(config: ModelConfig) -> Any:
    d, e = config.d_model, config.head_dim
    shapes: Any = ((config.n_head, e, e), (1, d), (1, d))
    return Rwkv5State(*shapes)


def _init(config: ModelConfig, rng: jax.Array, index: jax.Array, dtype: Any) -> Params:
    d, hidden = config.d_model, config.ff_dim
    up, down = depth(config, index, dtype)
    n = channels(config, dtype)
    rngs = jax.random.split(rng, 6)
    # Of the token before; the authors start from that of the token itself.
    slow = 1.0 - mix_start(config, down, dtype)
    fast = 1.0 - mix_start(config, 0.5 * down, dtype)
    zigzag = ((jnp.arange(d) + 1) % 3 - 1).astype(dtype) * 0.1
    time = {
        "mix": {"r": fast, "k": slow, "v": slow - 0.3 * up, "g": fast},
        "decay": -6.0 + 5.0 * n ** (0.7 + 1.3 * up),
        "bonus": up * (1.0 - n) + zigzag,
        "r": orthogonal(rngs[0], d, d, dtype, 1.0),
        "k": orthogonal(rngs[1], d, d, dtype, 0.1),
        "v": orthogonal(rngs[2], d, d, dtype, 1.0),
        "g": orthogonal(rngs[3], d, d, dtype, 0.1),
        "out_norm": head_norm(config, index, dtype),
        "out": zeros(d, d, dtype),
    }
    channel = {
        "mix": {"r": slow, "k": slow},
        "k": orthogonal(rngs[4], d, hidden, dtype, 1.0),
        "r": zeros(d, d, dtype),
        "out": zeros(hidden, d, dtype),
    }
    norms = {f"norm_{name}": init_layer_norm(d, dtype) for name in ("time", "channel")}
    return {**norms, "time": time, "channel": channel}


def _apply(
    config: ModelConfig, params: Params, state: Rwkv5State, x: jax.Array, mask: jax.Array
) -> tuple[Rwkv5State, jax.Array]:
    normed = layer_norm(params["norm_time"], x, config.layer_norm_eps)
    last, before = previous_token(normed, state.time, mask)
    S, y = _time_mix(config, params["time"], state.S, normed, before, mask)
    x = x + y
    normed = layer_norm(params["norm_channel"], x, config.layer_norm_eps)
    last_channel, before = previous_token(normed, state.channel, mask)
    x = x + _channel_mix(params["channel"], normed, before)
    return Rwkv5State(S, last, last_channel), x


def _time_mix(
    config: ModelConfig,
    params: Params,
    S: jax.Array,
    x: jax.Array,
    before: jax.Array,
    mask: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    h, e = config.n_head, config.head_dim
    xr, xk, xv, xg = shifted_mixes(params["mix"], ("r", "k", "v", "g"), x, before)
    r, k, v = (
        heads(wide(dense(params[name], mixed)), h)
        for name, mixed in (("r", xr), ("k", xk), ("v", xv))
    )
    decay = -jnp.exp(wide(params["decay"])).reshape(1, 1, h, e)
    S, y = wkv5(
        r,
        silence(mask, k),
        silence(mask, v),
        silence(mask, jnp.broadcast_to(decay, r.shape)),
        wide(params["bonus"]).reshape(h, e),
        S,
        config.chunk_size,
    )
    y = group_norm(params["out_norm"], y, GROUP_NORM_EPS).astype(x.dtype)
    return S, dense(params["out"], y * jax.nn.silu(dense(params["g"], xg)))


def _channel_mix(params: Params, x: jax.Array, before: jax.Array) -> jax.Array:
    """``sigmoid(W_r x_r) * W_v relu(W_k x_k)^2``."""
    xr, xk = shifted_mixes(params["mix"], ("r", "k"), x, before)
    hidden = jnp.square(jax.nn.relu(dense(params["k"], xk)))
    return jax.nn.sigmoid(dense(params["r"], xr)) * dense(params["out"], hidden)


RWKV5 = Block(_init, _shapes, _apply, is_rwkv=True)
