"""Floating-point operations that a model must do: matrix products only, 2 per multiply-add.

What an implementation recomputes, or computes and throws away, is not counted: a share of peak
made of this counts useful work.
"""

from __future__ import annotations

from armt_jax.config import ModelConfig
from armt_jax.models import create_model


def block_flops(config: ModelConfig, rows: int, keys: int, out_rows: int | None = None) -> float:
    """One block over ``rows`` positions, the last ``out_rows`` of them needed after attention.

    The mask is causal: a position attends to ``keys`` less those behind it.
    """
    d, out = config.d_model, rows if out_rows is None else out_rows
    attention = 2.0 * (out * keys - out * (out - 1) / 2) * d * 2
    return 2.0 * (rows * 2 * d * d + out * 2 * d * d + out * 2 * d * config.ff_dim) + attention


def memory_flops(config: ModelConfig, reading: int, writing: int) -> float:
    """Recall at ``reading`` positions and update from ``writing`` memory tokens of one layer."""
    k, d = create_model(config).features, config.d_model
    recall = 2.0 * reading * (d * config.d_mem + k * d)
    update = 2.0 * writing * (d * config.d_mem + d * d + 2 * k * d)
    return recall + update


def context_flops(config: ModelConfig, length: int) -> float:
    """One segment of one text read into the memory; nobody needs its hidden states."""
    m = config.num_mem_tokens
    rows = length + m
    inner = block_flops(config, rows, rows) + memory_flops(config, rows, m)
    last = block_flops(config, rows, rows, m) + memory_flops(config, rows, m)
    return (config.n_layer - 1) * inner + last


def query_flops(config: ModelConfig, length: int, scored: int) -> float:
    """One query of ``length`` tokens, of which ``scored`` positions get logits."""
    layer = block_flops(config, length, length) + memory_flops(config, length, 0)
    return config.n_layer * layer + 2.0 * scored * config.d_model * config.vocab_size
