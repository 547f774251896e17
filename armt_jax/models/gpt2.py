"""GPT-2 block: pre-norm, sequential residual, tanh GELU. Parameter names are Hugging Face's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from armt_jax.config import ModelConfig
from armt_jax.models.attention import KeyValues, SegmentContext, segment_attention, tail


def columns_by_head(leaf: jax.Array, heads: int) -> jax.Array:
    """Columns ``[..., 3 d]`` of ``c_attn`` from ``[q | k | v]`` of all heads to that of each."""
    lead = leaf.shape[:-1]
    split = leaf.reshape(*lead, 3, heads, leaf.shape[-1] // (3 * heads))
    return split.swapaxes(-3, -2).reshape(leaf.shape)


class _Attention(nn.Module):
    config: ModelConfig
    param_dtype: jax.typing.DTypeLike
    heads_apart: bool

    @nn.compact
    def __call__(
        self, x: jax.Array, context: SegmentContext, past: KeyValues | None, last: int | None
    ) -> tuple[jax.Array, KeyValues]:
        cfg = self.config
        heads = (*x.shape[:2], cfg.n_head, cfg.head_dim)
        qkv = nn.Dense(
            3 * cfg.d_model,
            kernel_init=nn.initializers.normal(cfg.initializer_range),
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="c_attn",
        )(x)
        if self.heads_apart:
            qkv = qkv.reshape(*heads[:3], 3 * cfg.head_dim)
        q, k, v = (part.reshape(heads) for part in jnp.split(qkv, 3, axis=-1))
        out = segment_attention(q, k, v, context.attend, past, last)
        out = nn.Dense(
            cfg.d_model,
            kernel_init=nn.initializers.normal(cfg.attention_init),
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="c_proj",
        )(out.reshape(*out.shape[:2], cfg.d_model))
        return out, KeyValues(k, v)


class _Mlp(nn.Module):
    config: ModelConfig
    param_dtype: jax.typing.DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.config
        hidden = nn.Dense(
            cfg.ff_dim,
            kernel_init=nn.initializers.normal(cfg.initializer_range),
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="c_fc",
        )(x)
        return nn.Dense(
            cfg.d_model,
            kernel_init=nn.initializers.normal(cfg.residual_init),
            dtype=x.dtype,
            param_dtype=self.param_dtype,
            name="c_proj",
        )(jax.nn.gelu(hidden, approximate=True))


class GPT2Block(nn.Module):
    """``x + attn(ln_1(x))``, then ``x + mlp(ln_2(x))``.

    Attributes:
      config: the model's.
      param_dtype: dtype of the parameters at initialisation.
      heads_apart: the columns of ``c_attn`` are those of ``columns_by_head``.
    """

    config: ModelConfig
    param_dtype: jax.typing.DTypeLike = jnp.float32
    heads_apart: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: SegmentContext,
        past: KeyValues | None = None,
        last: int | None = None,
    ) -> tuple[jax.Array, KeyValues]:
        """One block.

        Args:
          x: ``[b, t, d]``.
          context: positions and mask of the segment.
          past: earlier keys and values.
          last: output these last rows only; all for None.

        Returns:
          ``[b, last or t, d]`` and the keys and values of all ``t`` positions.
        """
        eps = self.config.layer_norm_eps
        norm = {"epsilon": eps, "dtype": x.dtype, "param_dtype": self.param_dtype}
        attended, own = _Attention(self.config, self.param_dtype, self.heads_apart, name="attn")(
            nn.LayerNorm(**norm, name="ln_1")(x), context, past, last
        )
        x = tail(x, last) + attended
        x = x + _Mlp(self.config, self.param_dtype, name="mlp")(
            nn.LayerNorm(**norm, name="ln_2")(x)
        )
        return x, own
