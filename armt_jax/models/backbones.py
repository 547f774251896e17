"""What differs between backbones outside their block: embeddings, positions, head."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from armt_jax.config import ModelConfig
from armt_jax.models.gpt2 import GPT2Block
from armt_jax.models.gpt_neox import GPTNeoXBlock
from armt_jax.models.llama import LlamaBlock

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A transformer's block, and the reference names of the parameters around it.

    Attributes:
      block: Linen module class of one layer.
      embedding: name of the token embedding ``[v, d]``.
      learned_positions: whether there is a table ``wpe [n, d]``.
      norm: name of the final norm.
      head: name of the output matrix ``[d, v]`` where it is not the token embedding's transpose;
        None where it always is (``head_name`` says which of the two a configuration has).
      rms: whether norms are RMSNorm, which has a scale alone, or layer norm.
    """

    block: type[nn.Module]
    embedding: str
    learned_positions: bool
    norm: str
    head: str | None
    rms: bool = False


BACKBONES: dict[str, Backbone] = {
    "gpt2": Backbone(GPT2Block, "wte", True, "ln_f", None),
    "gpt_neox": Backbone(GPTNeoXBlock, "embed_in", False, "final_layer_norm", "embed_out"),
    "llama": Backbone(LlamaBlock, "embed_tokens", False, "norm", "lm_head", rms=True),
}


def head_name(config: ModelConfig) -> str | None:
    """Name of the output matrix ``[d, v]``; None where it is the token embedding's transpose."""
    return None if config.is_tied else BACKBONES[config.backbone].head


def init_embeddings(config: ModelConfig, rng: jax.Array, dtype: jax.typing.DTypeLike) -> Params:
    """Token embedding, positions where learned, and the memory tokens ``[m, d]`` if there are any.

    Tokens and positions are normal with ``config.initializer_range``. Memory tokens are drawn with
    the token embedding's standard deviation, and the rows that ``wrap_pos`` adds to the positions
    from N(0, 1), both as the authors' code does; the config's scales multiply positions and memory
    tokens.
    """
    backbone = BACKBONES[config.backbone]
    tokens_rng, positions_rng, extra_rng, memory_rng = jax.random.split(rng, 4)
    shape = (config.vocab_size, config.d_model)
    tokens = config.initializer_range * jax.random.normal(tokens_rng, shape, dtype)
    params: Params = {backbone.embedding: tokens}
    if backbone.learned_positions:
        shape = (config.n_positions, config.d_model)
        scale = config.initializer_range * config.position_init_scale
        positions = scale * jax.random.normal(positions_rng, shape, dtype)
        if config.wrap_pos:
            extra = jax.random.normal(extra_rng, (config.memory_positions, config.d_model), dtype)
            positions = jnp.concatenate([positions, extra])
        params["wpe"] = positions
    if config.memory_positions:
        params["memory"] = init_memory_tokens(config, memory_rng, tokens)
    return params


def init_memory_tokens(config: ModelConfig, rng: jax.Array, tokens: jax.Array) -> jax.Array:
    """Memory tokens ``[m, d]`` drawn with the standard deviation of ``tokens [v, d]``."""
    memory = jax.random.normal(rng, (config.num_mem_tokens, config.d_model), tokens.dtype)
    return memory * (config.memory_token_init_scale * jnp.std(tokens))


def init_head(config: ModelConfig, rng: jax.Array, dtype: jax.typing.DTypeLike) -> Params:
    """Final norm, and the output matrix where it is not tied."""
    backbone = BACKBONES[config.backbone]
    norm = {"scale": jnp.ones((config.d_model,), dtype)}
    if not backbone.rms:
        norm["bias"] = jnp.zeros((config.d_model,), dtype)
    params: Params = {backbone.norm: norm}
    name = head_name(config)
    if name is not None:
        shape = (config.d_model, config.vocab_size)
        params[name] = config.initializer_range * jax.random.normal(rng, shape, dtype)
    return params


def embed_tokens(
    config: ModelConfig, params: Params, tokens: jax.Array, positions: jax.Array
) -> jax.Array:
    """Embeddings of ``tokens [b, t]`` at ``positions [b or 1, t]``: ``[b, t, d]``."""
    embedded = jnp.take(params[BACKBONES[config.backbone].embedding], tokens, axis=0)
    return add_positions(config, params, embedded, positions)


def add_positions(
    config: ModelConfig, params: Params, x: jax.Array, positions: jax.Array
) -> jax.Array:
    """``x [b, n, d]`` with the learned positions ``[b or 1, n]`` added, where there are such."""
    if not BACKBONES[config.backbone].learned_positions:
        return x
    return x + jnp.take(params["wpe"], positions, axis=0)


def embed_memory(config: ModelConfig, params: Params, positions: jax.Array) -> jax.Array:
    """Memory tokens at ``positions [1, m]``: ``[1, m, d]``."""
    memory = params["memory"][None]
    if not BACKBONES[config.backbone].learned_positions:
        return memory
    if config.wrap_pos:
        return memory + params["wpe"][None, config.n_positions :]
    return memory + jnp.take(params["wpe"], positions, axis=0)


def final_norm(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """What the output matrix is given of the last block's output ``hidden [..., d]``."""
    backbone = BACKBONES[config.backbone]
    kind = nn.RMSNorm if backbone.rms else nn.LayerNorm
    norm = kind(epsilon=config.layer_norm_eps, dtype=hidden.dtype, param_dtype=hidden.dtype)
    normed: Any = norm.apply({"params": params["head"][backbone.norm]}, hidden)
    return normed


def readout(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """Logits ``[..., v]``, float32 or wider, of the last block's output ``hidden [..., d]``."""
    backbone = BACKBONES[config.backbone]
    head = params["head"]
    normed = final_norm(config, params, hidden)
    name = head_name(config)
    matrix = params["embed"][backbone.embedding].T if name is None else head[name]
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    return jnp.matmul(normed, matrix.astype(hidden.dtype), preferred_element_type=wide)
