"""Settings of a model that only some backbones have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armt_jax.config.checks import positive, require

if TYPE_CHECKING:
    from armt_jax.config.model import ModelConfig


def check_backbone(config: ModelConfig) -> None:
    """Raise ``ConfigError`` where ``config`` has what its backbone cannot have."""
    if config.n_kv_head is not None:
        _check_kv_heads(config, config.n_kv_head)
    if config.backbone == "gpt2":
        tied, apart = config.tie_embeddings, "must be None or True: GPT-2's output matrix is its"
        require(tied is not False, "model.tie_embeddings", tied, f"{apart} token embedding")
    if config.rotary_scaling:
        _check_rotary_scaling(config, config.rotary_scaling)
    if config.backbone == "llama":
        even = f"must leave heads of an even width for rotary pairs, not {config.head_dim}"
        require(config.head_dim % 2 == 0, "model.n_head", config.n_head, even)


def _check_kv_heads(config: ModelConfig, heads: int) -> None:
    name = "model.n_kv_head"
    positive(config, "model", "n_kv_head")
    only_llama = f"must be None or model.n_head with {config.backbone}, which shares no keys"
    require(config.backbone == "llama" or heads == config.n_head, name, heads, only_llama)
    divides = f"must divide model.n_head = {config.n_head}"
    require(config.n_head % heads == 0, name, heads, divides)


def _check_rotary_scaling(config: ModelConfig, scaling: tuple[float, ...]) -> None:
    """Llama 3's four numbers."""
    name = "model.rotary_scaling"
    alone = f"must be empty with {config.backbone}: only Llama's frequencies are changed"
    require(config.backbone == "llama", name, scaling, alone)
    four = "must be empty or (factor, low_freq_factor, high_freq_factor, positions)"
    require(len(scaling) == 4, name, scaling, four)
    factor, low, high, positions = scaling
    good = factor >= 1 and 0 < low < high and positions > 0
    require(good, name, scaling, f"{four}: factor >= 1, 0 < low < high, positions > 0")
