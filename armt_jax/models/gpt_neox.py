"""GPT-NeoX block: rotary positions, parallel residual, exact GELU. Names are Hugging Face's."""

from __future__ import annotations

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
        init = nn.initializers.normal(cfg.initializer_range)
        kind = {"kernel_init": init, "dtype": x.dtype, "param_dtype": self.param_dtype}
        qkv = nn.Dense(3 * cfg.d_model, **kind, name="query_key_value")(x)
        # The reference lays the output out per head as [q | k | v].
        qkv = qkv.reshape(*x.shape[:2], cfg.n_head, 3 * cfg.head_dim)
        q, k, v = jnp.split(qkv, 3, axis=-1)
        q = rotary(q, context.positions, dims=cfg.rotary_dim, base=cfg.rotary_base)
        k = rotary(k, context.positions, dims=cfg.rotary_dim, base=cfg.rotary_base)
        out = segment_attention(q, k, v, context.attend, past, last)
        kind["kernel_init"] = nn.initializers.normal(cfg.attention_init)
        out = nn.Dense(cfg.d_model, **kind, name="dense")(out.reshape(*out.shape[:2], cfg.d_model))
        return out, KeyValues(k, v)


class _Mlp(nn.Module):
    config: ModelConfig
    param_dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.config
        init = nn.initializers.normal(cfg.initializer_range)
        kind = {"kernel_init": init, "dtype": x.dtype, "param_dtype": self.param_dtype}
        hidden = nn.Dense(cfg.ff_dim, **kind, name="dense_h_to_4h")(x)
        hidden = jax.nn.gelu(hidden, approximate=False)
        kind["kernel_init"] = nn.initializers.normal(cfg.residual_init)
        return nn.Dense(cfg.d_model, **kind, name="dense_4h_to_h")(hidden)


class GPTNeoXBlock(nn.Module):
    """``x + attn(input_layernorm(x)) + mlp(post_attention_layernorm(x))``.

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
        attended, own = _Attention(self.config, self.param_dtype, name="attention")(
            nn.LayerNorm(**norm, name="input_layernorm")(x), context, past, last
        )
        x = tail(x, last)
        normed = nn.LayerNorm(**norm, name="post_attention_layernorm")(x)
        return x + attended + _Mlp(self.config, self.param_dtype, name="mlp")(normed), own
