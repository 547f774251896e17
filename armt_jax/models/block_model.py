"""What all models over the blocks of a backbone share."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
from flax import linen as nn

from armt_jax.config import ModelConfig
from armt_jax.models import backbones
from armt_jax.models.attention import KeyValues, SegmentContext
from armt_jax.models.cache import Cache, extended, next_context
from armt_jax.models.gpt2 import columns_by_head
from armt_jax.models.layers import run_layers
from armt_jax.models.precision import at_model_precision
from armt_jax.models.protocol import Params, State


@dataclasses.dataclass(frozen=True)
class BlockModel:
    """A stack of a backbone's blocks, its embeddings and its head.

    Attributes:
      config: the model's shape.
      heads_apart: the parameters are those of ``columns_by_head``.
    """

    config: ModelConfig
    heads_apart: bool = False

    def block(self, param_dtype: jax.typing.DTypeLike = jnp.float32) -> nn.Module:
        """The Linen module of one transformer block."""
        block = backbones.BACKBONES[self.config.backbone].block
        options = {"heads_apart": True} if self.heads_apart else {}
        return block(self.config, param_dtype, **options)

    @at_model_precision
    def apply_block(
        self,
        params_l: Params,
        x: jax.Array,
        context: SegmentContext,
        past: KeyValues | None = None,
        last: int | None = None,
    ) -> tuple[jax.Array, KeyValues]:
        """The transformer block alone; see ``GPT2Block``."""
        out: Any = self.block().apply({"params": params_l["block"]}, x, context, past, last)
        return out

    def by_head(self) -> Self:
        """The same model for parameters of ``columns_by_head``."""
        gpt2 = self.config.backbone == "gpt2"
        return dataclasses.replace(self, heads_apart=gpt2)

    def columns_by_head(self, params: Params) -> Params:
        """``params`` with ``[q | k | v]`` of every head side by side, as GPT-NeoX has them.

        GPT-2's ``c_attn`` has all heads' queries first: a share of its columns would hold no whole
        head. For one computation only; what is kept and saved has the reference's order.
        """
        if self.config.backbone != "gpt2":
            return params
        block = params["layers"]["block"]
        c_attn = jax.tree.map(
            functools.partial(columns_by_head, heads=self.config.n_head), block["attn"]["c_attn"]
        )
        block = {**block, "attn": {**block["attn"], "c_attn": c_attn}}
        return {**params, "layers": {**params["layers"], "block": block}}

    def init(self, rng: jax.Array, dtype: jax.typing.DTypeLike | None = None) -> Params:
        """Parameters as the authors initialise them; layers are stacked along axis 0.

        Args:
          rng: a key.
          dtype: of the parameters; by default JAX's float (float32 unless x64 is enabled).
        """
        cfg = self.config
        dtype = jnp.result_type(float) if dtype is None else dtype
        embed_rng, head_rng, layers_rng = jax.random.split(rng, 3)

        def init_layer(rng: jax.Array) -> Params:
            return self.init_layer(rng, dtype)

        return {
            "embed": backbones.init_embeddings(cfg, embed_rng, dtype),
            "layers": jax.vmap(init_layer)(jax.random.split(layers_rng, cfg.n_layer)),
            "head": backbones.init_head(cfg, head_rng, dtype),
        }

    def init_layer(self, rng: jax.Array, dtype: jax.typing.DTypeLike) -> Params:
        """Parameters of one layer: the block's, and what a family has beside it."""
        x = jnp.zeros((1, 1, self.config.d_model), dtype)
        context = SegmentContext(jnp.zeros((1, 1), jnp.int32), jnp.ones((1, 1, 1), bool))
        return {"block": self.block(dtype).init(rng, x, context)["params"]}

    def compute_dtype(self, params: Params) -> jnp.dtype:
        """Dtype of activations: ``config.dtype``, or the parameters'."""
        name = backbones.BACKBONES[self.config.backbone].embedding
        return jnp.dtype(self.config.dtype or params["embed"][name].dtype)

    def embed_tokens(self, params: Params, tokens: jax.Array, positions: jax.Array) -> jax.Array:
        """The first layer's input ``[b, t, d]`` of ``tokens [b, t]`` at ``[b or 1, t]``."""
        x = backbones.embed_tokens(self.config, params["embed"], tokens, positions)
        return x.astype(self.compute_dtype(params))

    def reading_layers(
        self,
        params: Params,
        state: State,
        x: jax.Array,
        context: SegmentContext,
        past: KeyValues | None,
    ) -> tuple[jax.Array, KeyValues]:
        """``x [b, n, d]`` through layers that read ``state`` and do not write it.

        Args:
          params, state: the model's.
          x: the first layer's input.
          context: positions, and which of ``past`` and themselves they see.
          past: keys and values of all layers, ``[l, b, w, h, e]``.

        Returns:
          The top layer's output, and the positions' own keys and values ``[l, b, n, h, e]``.
        """
        del state  # what it holds stands in ``past``, unless a family's layers look at it

        def layer(x: jax.Array, scanned: Any, last: int | None) -> tuple[jax.Array, KeyValues]:
            params_l, past_l = scanned
            return self.apply_block(params_l, x, context, past_l, last)

        return run_layers(layer, x, params["layers"], past)

    def decode(
        self, params: Params, state: State, cache: Cache, token: jax.Array
    ) -> tuple[Cache, jax.Array]:
        """Read one more token ``[b]``: the new cache and its hidden state ``[b, d]``."""
        context = next_context(cache)
        x = self.embed_tokens(params, token[:, None], context.positions)
        x, own = self.reading_layers(params, state, x, context, cache.kv)
        return extended(cache, own), x[:, 0]

    @at_model_precision
    def readout(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Logits ``[..., v]`` of hidden states: final layer norm and output matrix."""
        return backbones.readout(self.config, params, hidden)
