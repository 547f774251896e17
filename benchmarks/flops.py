"""Floating-point operations that a model must do: matrix products only, 2 per multiply-add.

What an implementation recomputes, or computes and throws away, is not counted: a share of peak
made of this counts useful work.
"""

from __future__ import annotations

from armt_jax.config import ConfigError, ModelConfig
from armt_jax.models import create_model
from benchmarks.recurrent_flops import recurrent_flops


def block_flops(config: ModelConfig, rows: int, keys: int, out_rows: int | None = None) -> float:
    """One block over ``rows`` positions, the last ``out_rows`` of them needed after attention.

    The mask is causal: a position attends to ``keys`` less those behind it.
    """
    return _block_behind(config, rows, keys, rows if out_rows is None else out_rows)


def memory_flops(config: ModelConfig, reading: int, writing: int) -> float:
    """Recall at ``reading`` positions and update from ``writing`` memory tokens of one layer."""
    k, d = create_model(config).features, config.d_model
    recall = 2.0 * reading * (d * config.d_mem + k * d)
    update = 2.0 * writing * (d * config.d_mem + d * d + 2 * k * d)
    return recall + update


def context_flops(
    config: ModelConfig, length: int, before: float = 0.0, *, predicted: bool = False
) -> float:
    """One segment of one text read into the memory.

    Args:
      config: the model's.
      length: tokens of a segment.
      before: tokens that a transformer's token sees in front of the segment, on average over the
        segments of a text; for RMT-R, the states that it looks back at.
      predicted: with logits at every token; else nobody needs its hidden states.

    Raises:
      ConfigError: a family whose operations nobody has counted.
    """
    m, family = config.num_mem_tokens, config.family
    if predicted:
        head = 2.0 * length * config.d_model * config.vocab_size
        return head + _hidden_flops(config, length, before, None)
    return _hidden_flops(config, length, before, 0 if family == "transformer" else m)


def _hidden_flops(config: ModelConfig, length: int, before: float, last: int | None) -> float:
    """``context_flops`` with ``last`` positions of the top layer, or all (None)."""
    m, family = config.num_mem_tokens, config.family
    if config.is_state_space:
        return length * recurrent_flops(config)
    if family == "transformer":
        keys, out = length + before, length if last is None else last
        inner = _block_behind(config, length, keys, length)
        return (config.n_layer - 1) * inner + _block_behind(config, length, keys, out)
    if family == "prmt":
        rows, front = length + m, _keys_and_values(config, m)
        # As released, the memory tokens behind the others are in the top layer only.
        inner = rows if config.memory_passing == "layerwise" else length
        below = front + _block_behind(config, inner, inner + m, inner)
        out = rows if last is None else last
        return (config.n_layer - 1) * below + front + _block_behind(config, rows, rows + m, out)
    rows = length + config.memory_positions
    if family == "armt":
        memory = len(config.layers_with_memory) * memory_flops(config, rows, m)
    elif family in ("rmt", "rmt_r"):
        memory = 0.0
    else:
        raise ConfigError(f"model.family = {family!r}: its operations have not been counted")
    inner = block_flops(config, rows, rows)
    top = block_flops(config, rows, rows, rows if last is None else last)
    return (config.n_layer - 1) * inner + top + memory + _retrieval(config, before)


def seen_before(config: ModelConfig, pairs: int, length: int) -> tuple[float, float]:
    """What families with a growing state see of the past: on average, and at the end.

    Tokens of a transformer, states of RMT-R, of a text of ``pairs`` segments of ``length`` tokens.
    """
    if config.family == "transformer":
        most, behind = config.attention_window or config.context_tokens, pairs * length
        return sum(min(most, n * length) for n in range(pairs)) / pairs, min(most, behind)
    most = config.retrieval_states
    return sum(min(most, max(n - 1, 0)) for n in range(pairs)) / pairs, min(most, pairs - 1)


def flops_per_token(
    config: ModelConfig, segments: int, length: int, *, predicted: bool = False
) -> float:
    """``context_flops`` of a text of ``segments`` segments, on average over its tokens."""
    before, _ = seen_before(config, segments, length)
    return context_flops(config, length, before, predicted=predicted) / length


def query_flops(config: ModelConfig, length: int, scored: int, before: float = 0.0) -> float:
    """One query of ``length`` tokens, of which ``scored`` positions get logits.

    What all queries of a text share, as RMT's memory tokens going through the layers, is counted
    for each. ``before``: as in ``context_flops``, at the end of the text.
    """
    head = 2.0 * scored * config.d_model * config.vocab_size
    if config.is_state_space:
        return length * recurrent_flops(config) + head
    if config.family == "armt":
        memory = len(config.layers_with_memory) * memory_flops(config, length, 0)
        return config.n_layer * block_flops(config, length, length) + memory + head
    front = config.prefix_positions
    seen = before if config.family == "transformer" else front
    layer = _block_behind(config, length, length + seen, length)
    if config.family == "prmt":
        layer += _keys_and_values(config, front)
    elif front:
        layer += block_flops(config, front, front)
    return config.n_layer * layer + head + _retrieval(config, before)


def _block_behind(config: ModelConfig, rows: int, keys: float, out: int) -> float:
    """``block_flops`` of ``rows`` positions that see ``keys``: others first, then themselves."""
    d = config.d_model
    # Llama's feed-forward layer has a gate beside what goes in and what comes out.
    matrices = 3 if config.backbone == "llama" else 2
    attention = 2.0 * (out * keys - out * (out - 1) / 2) * d * 2
    behind = 2.0 * out * (2 * d * d + matrices * d * config.ff_dim)
    return _keys_and_values(config, rows) + behind + attention


def _keys_and_values(config: ModelConfig, rows: int) -> float:
    return 2.0 * rows * config.d_model * 2 * config.kv_heads * config.head_dim


def _retrieval(config: ModelConfig, states: float) -> float:
    """RMT-R's cross-attention from the memory tokens to ``states`` earlier states."""
    if config.family != "rmt_r":
        return 0.0
    m, d = config.num_mem_tokens, config.d_model
    return 2.0 * (3 * m * d * d + 2 * m * states * m * d)
