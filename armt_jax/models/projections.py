"""What a layer of ARMT has beside its transformer block: the projections of its memory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from armt_jax.config import ModelConfig


def _torch_linear_init(fan_in: int) -> nn.initializers.Initializer:
    """Uniform in +-1/sqrt(fan_in): the default of ``torch.nn.Linear`` and of the authors' code."""

    def init(rng: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
        bound = 1.0 / fan_in**0.5
        return jax.random.uniform(rng, shape, dtype, -bound, bound)

    return init


class MemoryProjections(nn.Module):
    """``W_Q, W_K, W_V, W_beta`` of one layer, under the reference names. ``W_V`` starts at zero."""

    config: ModelConfig
    param_dtype: jax.typing.DTypeLike = jnp.float32

    def setup(self) -> None:
        """The four projections; Flax calls this."""
        cfg = self.config
        init = _torch_linear_init(cfg.d_model)
        kind = {"use_bias": False, "param_dtype": self.param_dtype}
        self.W_mq = nn.Dense(cfg.d_mem, kernel_init=init, **kind)
        self.W_mk = nn.Dense(cfg.d_mem, kernel_init=init, **kind)
        self.W_mv = nn.Dense(cfg.d_model, kernel_init=nn.initializers.zeros, **kind)
        self.W_mb = nn.Dense(1, kernel_init=init, bias_init=init, param_dtype=self.param_dtype)

    def query(self, x: jax.Array) -> jax.Array:
        """``W_Q x``: ``[..., d] -> [..., d_mem]``."""
        return self.W_mq(x)

    def write(self, m: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Keys ``[..., d_mem]``, values ``[..., d]`` and gate logits ``[...]`` of memory tokens."""
        return self.W_mk(m), self.W_mv(m), self.W_mb(m)[..., 0]

    def __call__(self, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
        """All projections, to create the parameters."""
        return self.query(x), self.write(x)
