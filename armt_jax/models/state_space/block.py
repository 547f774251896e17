"""What a family brings to the frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from armt_jax.config import ModelConfig
from armt_jax.models.protocol import Params, State
from armt_jax.models.state_space.parts import gated_mlp, init_mlp, rms_norm

Mix = Callable[[ModelConfig, Params, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]


def _d_model(config: ModelConfig) -> int:
    return config.d_model


@dataclasses.dataclass(frozen=True)
class Block:
    """One residual block with a state, as functions.

    Attributes:
      init: ``(config, rng, index, dtype) -> params`` of the layer ``index`` (a traced int32).
      state_shapes: of one text, in the family's named tuple: the leaves' ``[...]`` of ``[b, ...]``.
      apply: ``(config, params, state, x [b, t, c], mask [b, t]) -> (state, x)``, of packed tokens
        (``short_conv.Packing``); the residual is part of it.
      is_rwkv: layer norms, one of the embedding too, and an output matrix of its own; else RMS
        norms and the embedding's transpose.
      carried: ``c``, which begins with the width of the model.
      holds_states: ``apply`` goes through the whole state for every token, instead of reading it by
        products: side by side, queries would each hold their own.
    """

    init: Callable[[ModelConfig, jax.Array, jax.Array, Any], Params]
    state_shapes: Callable[[ModelConfig], Any]
    apply: Callable[[ModelConfig, Params, State, jax.Array, jax.Array], tuple[State, jax.Array]]
    is_rwkv: bool = False
    carried: Callable[[ModelConfig], int] = _d_model
    holds_states: bool = False


def pre_norm_block(
    init: Callable[[ModelConfig, jax.Array, Any], Params],
    shapes: Callable[[ModelConfig], Any],
    mix: Mix,
    *,
    holds_states: bool = False,
) -> Block:
    """``x + mix(rms_norm(x))``, and where ``config.mixer_mlp`` says so a gated MLP behind it.

    Args:
      init: ``(config, rng, dtype) -> params`` of the mixer.
      shapes: ``Block.state_shapes``.
      mix: ``(config, params, state, x [b, t, d], mask) -> (state, y [b, t, d])``.
      holds_states: ``Block.holds_states``.
    """

    def init_block(config: ModelConfig, rng: jax.Array, index: jax.Array, dtype: Any) -> Params:
        del index
        mixer_rng, mlp_rng = jax.random.split(rng)
        params = {
            "norm": {"scale": jnp.ones((config.d_model,), dtype)},
            "mixer": init(config, mixer_rng, dtype),
        }
        return {**params, "mlp": init_mlp(config, mlp_rng, dtype)} if config.mixer_mlp else params

    def apply(
        config: ModelConfig, params: Params, state: State, x: jax.Array, mask: jax.Array
    ) -> tuple[State, jax.Array]:
        normed = rms_norm(params["norm"]["scale"], x, config.layer_norm_eps)
        state, y = mix(config, params["mixer"], state, normed, mask)
        x = x + y
        return state, gated_mlp(config, params["mlp"], x) if config.mixer_mlp else x

    return Block(init_block, shapes, apply, holds_states=holds_states)
