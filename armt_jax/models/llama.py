"""Llama block: RMSNorm, rotary positions, grouped-query attention, SwiGLU (arXiv 2302.13971).

Parameter names are Hugging Face's.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from armt_jax.config import ModelConfig
from armt_jax.models.attention import KeyValues, SegmentContext, rotary, segment_attention, tail


class _Attention(nn.Module):
    config: ModelConfig
    param_dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(
        self, x: jax.Array, context: SegmentContext, past: KeyValues | None, last: int | None
    ) -> tuple[jax.Array, KeyValues]:
        cfg = self.config

        def project(name: str, heads: int) -> jax.Array:
            out = nn.Dense(
                heads * cfg.head_dim,
                use_bias=False,
                kernel_init=nn.initializers.normal(cfg.initializer_range),
                dtype=x.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )(x)
            return out.reshape(*x.shape[:2], heads, cfg.head_dim)

        q, k = project("q_proj", cfg.n_head), project("k_proj", cfg.kv_heads)
        v = project("v_proj", cfg.kv_heads)
        turn = functools.partial(
            rotary,
            positions=context.positions,
            dims=cfg.rotary_dim,
            base=cfg.rotary_base,
            scaling=cfg.rotary_scaling,
        )
        q, k = turn(q), turn(k)
        out = segment_attention(q, k, v, context.attend, past, last)
        out = nn.Dense(
            cfg.d_model,
            use_bias=False,
            kernel_init=nn.initializers.normal(cfg.attention_init),
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="o_proj",
        )(out.reshape(*out.shape[:2], cfg.d_model))
        return out, KeyValues(k, v)


class _Mlp(nn.Module):
    """``W_down (silu(W_gate x) * W_up x)`` (SwiGLU, arXiv 2002.05202)."""

    config: ModelConfig
    param_dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.config
        kind = {"use_bias": False, "dtype": x.dtype, "param_dtype": self.param_dtype}
        init = nn.initializers.normal(cfg.initializer_range)
        gate = nn.Dense(cfg.ff_dim, kernel_init=init, **kind, name="gate_proj")(x)
        up = nn.Dense(cfg.ff_dim, kernel_init=init, **kind, name="up_proj")(x)
        init = nn.initializers.normal(cfg.residual_init)
        hidden = jax.nn.silu(gate) * up
        return nn.Dense(cfg.d_model, kernel_init=init, **kind, name="down_proj")(hidden)


class LlamaBlock(nn.Module):
    """``x + attn(input_layernorm(x))``, then ``x + mlp(post_attention_layernorm(x))``.

    Attributes:
      config: the model's.
      param_dtype: dtype of the parameters at initialisation.
    """

    config: ModelConfig
    param_dtype: jax.typing.DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: SegmentContext,
        past: KeyValues | None = None,
        last: int | None = None,
    ) -> tuple[jax.Array, KeyValues]:
        """As ``GPT2Block``: ``[b, t, d] -> [b, last or t, d]``, the segment's keys and values."""
        norm = {
            "epsilon": self.config.layer_norm_eps,
            "dtype": x.dtype,
            "param_dtype": self.param_dtype,
        }
        attended, own = _Attention(self.config, self.param_dtype, name="self_attn")(
            nn.RMSNorm(**norm, name="input_layernorm")(x), context, past, last
        )
        x = tail(x, last) + attended
        normed = nn.RMSNorm(**norm, name="post_attention_layernorm")(x)
        return x + _Mlp(self.config, self.param_dtype, name="mlp")(normed), own
